"""Thresholds for a compute budget: MSDNet's budgeted batch.

Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification" (ICLR 2018), section 3 and the
rule of their code: the share of rows that leave at exit k is proportional to q ** k, the surest first. The larger q,
the dearer; the largest is taken whose mean cost on the tune split meets the budget.

Tensor names carry their axes: N rows of a split, E exits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from calibration.thresholds import accepts, exits_taken
from common.criteria import Criterion
from common.errors import ConfigError
from common.types import Array

_STEPS = 601  # of q, evenly spaced in its logarithm
_WIDEST = 4.0  # q lies between 10 ** -4 and 10 ** 4


def check_budget(flops_E: Sequence[float], budget: float, name: str) -> None:
    """ConfigError when not even the first exit is so cheap; `name` is that of the operating point."""
    share = float(flops_E[0]) / float(flops_E[-1])
    if share > budget:
        raise ConfigError(
            f"calibration.points: {name!r}: a budget of {budget:g} of the network's FLOPs cannot be met: "
            f"the first exit takes {share:.3g} of them."
        )


def thresholds_within(criterion: Criterion, scores_EN: Array, flops_E: Array, budget: float) -> tuple[float, ...]:
    """The dearest thresholds of the family whose mean cost is at most the budget.

    Args:
        criterion: compares scores with thresholds.
        scores_EN: of the tune split.
        flops_E: of a row that leaves at each exit.
        budget: mean FLOPs per row as a share of those of the last exit.

    Raises:
        ConfigError: when not even the first exit is so cheap.
    """
    most = budget * float(flops_E[-1])
    never = (*(math.nan,) * (len(flops_E) - 1), criterion.accept_all)
    if flops_E[-1] <= most:
        return never
    best, best_cost = None, -1.0
    for q in np.logspace(-_WIDEST, _WIDEST, _STEPS):
        thresholds = _with_shares(criterion, scores_EN, q ** np.arange(len(flops_E)))
        cost = float(flops_E[exits_taken(criterion, scores_EN, thresholds)].mean())
        if best_cost < cost <= most:
            best, best_cost = thresholds, cost
    everything = (criterion.accept_all, *never[1:])
    if best is None and not np.isnan(scores_EN[0]).any() and flops_E[0] <= most:
        best = everything
    if best is None:
        raise ConfigError(
            f"A budget of {budget:g} of the network's FLOPs cannot be met: "
            f"the first exit takes {float(flops_E[0] / flops_E[-1]):.3g} of them."
        )
    return best


def _with_shares(criterion: Criterion, scores_EN: Array, shares_E: Array) -> tuple[float, ...]:
    """Thresholds at which about these shares of the rows leave; ties and rounding let more of them go."""
    sign = 1.0 if criterion.stricter_is_higher else -1.0
    unit = 10.0**criterion.decimals
    rows = scores_EN.shape[1]
    wanted_E = np.floor(rows * shares_E / shares_E.sum()).astype(int)
    left_N = np.ones(rows, bool)
    thresholds: list[float] = []
    for scores_N, wanted in zip(scores_EN[:-1], wanted_E[:-1], strict=True):
        surest = np.sort(sign * scores_N[left_N].astype(np.float64))[::-1]
        if not wanted or not len(surest) or np.isnan(surest).any():
            thresholds.append(math.nan)
            continue
        edge = math.floor(float(surest[min(wanted, len(surest)) - 1]) * unit) / unit
        thresholds.append(sign * max(edge, sign * criterion.accept_all) + 0.0)
        left_N &= ~accepts(criterion, scores_N, thresholds[-1])
    return (*thresholds, criterion.accept_all)
