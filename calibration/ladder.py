"""A ladder of thresholds, from the safest rung, everything to the last exit, down to the cheapest.

The ladder is fixed on the tune split alone. Whatever it is, testing its rungs in their order on other rows is
valid; a good ladder makes it worth while: rungs that save much come before rungs that risk much, and each rung
accepts at every exit what the rung above it accepts (so they are nested, and dearer never follows cheaper).

Each rung equalises one price over all exits: the loss that one more accepted row is expected to cost, divided
by the FLOPs that it saves. At each exit the tune split's rows are sorted by score into groups, from the surest
on. A group's loss, against leaving its rows to the last exit, is made to rise along the groups by isotonic
regression (pool adjacent violators; Barlow et al., "Statistical Inference under Order Restrictions", 1972).
Groups of all exits are then opened in the order of their price. At equal prices no exit could be loosened and
another tightened with profit, which is the condition of the best trade under one budget.

Tensor names carry their axes: N rows of a split, E exits, K rungs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.risks import Answered, Risk
from calibration.thresholds import ExitScores, exits_taken
from common.criteria import Criterion
from common.errors import ConfigError
from common.types import Array

MOST_RUNGS = 60
_GROUPS = 100  # per exit


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Thresholds of every rung, safest first."""

    criterion: Criterion
    thresholds_KE: tuple[tuple[float, ...], ...]  # NaN never accepts; the last exit accepts all
    aims_K: tuple[float, ...]  # the tune split's share of losses below zero, for the bets
    risks_K: tuple[float, ...]  # the tune split's mean loss

    def __len__(self) -> int:
        return len(self.thresholds_KE)

    def losses(self, scores: ExitScores, rows: Answered, risk: Risk) -> Array:
        """Loss of every row at every rung, [K, N].

        Args:
            scores: of the rows, at every exit.
            rows: what every exit answers, [E, N], and what should be answered.
            risk: the loss.
        """
        losses_EN = risk.losses(rows)
        return np.stack([_picked(losses_EN, self.exits_taken(scores, rung)) for rung in range(len(self))])

    def exits_taken(self, scores: ExitScores, rung: int) -> Array:
        """The exit at which each row leaves, [N]."""
        return exits_taken(self.criterion, scores.scores_EN, self.thresholds_KE[rung])


def build_ladder(
    criterion: Criterion, scores: ExitScores, rows: Answered, risk: Risk, flops_E: Array, *, most: int = MOST_RUNGS
) -> Ladder:
    """The ladder for one risk, from the tune split.

    Args:
        criterion: what compares scores with thresholds.
        scores: of the tune split.
        rows: what every exit answers there, [E, N], and what should be answered.
        risk: the loss that is to be bounded.
        flops_E: of a row that leaves at each exit.
        most: rungs at most, at least 2.

    Raises:
        ConfigError: when the split is empty.
    """
    if not scores.scores_EN.shape[1]:
        raise ConfigError("The tune split holds no rows, so no thresholds can be tried.")
    losses_EN = risk.losses(rows)
    path = _path(criterion, scores.scores_EN, losses_EN, flops_E)
    taken = [exits_taken(criterion, scores.scores_EN, thresholds) for thresholds in path]
    losses = [_picked(losses_EN, taken_N) for taken_N in taken]
    flops = [float(flops_E[taken_N].mean()) for taken_N in taken]
    kept = _thinned(flops, [float(losses_N.mean()) for losses_N in losses], most)
    return Ladder(
        criterion=criterion,
        thresholds_KE=tuple(path[step] for step in kept),
        aims_K=tuple(float((losses[step] < 0.0).mean()) for step in kept),
        risks_K=tuple(float(losses[step].mean()) for step in kept),
    )


def isotonic(values: Iterable[float], weights: Iterable[float]) -> list[float]:
    """The rising sequence nearest to the values by weighted squares (pool adjacent violators)."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, wa, na), (b, wb, nb) = pools[-2:]
            pools[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    return [mean for mean, _, length in pools for _ in range(length)]


def _path(criterion: Criterion, scores_EN: Array, losses_EN: Array, flops_E: Array) -> list[tuple[float, ...]]:
    """Every step from "never" to "always", the cheapest price first."""
    last = len(flops_E) - 1
    steps: list[tuple[float, int, int, float]] = []
    for number in range(last):
        if np.isnan(scores_EN[number]).any():
            continue  # an exit without a gate never accepts
        saved = max(float(flops_E[last] - flops_E[number]) / float(flops_E[last]), 1e-9)
        limits, extra = _groups(criterion, scores_EN[number], losses_EN[number] - losses_EN[last])
        steps += [(loss / saved, number, at, limit) for at, (loss, limit) in enumerate(zip(extra, limits, strict=True))]
    current = [math.nan] * last
    path = [(*current, criterion.accept_all)]
    for _, number, _, limit in sorted(steps):
        current[number] = limit
        path.append((*current, criterion.accept_all))
    return path


def _groups(criterion: Criterion, scores_N: Array, extra_N: Array) -> tuple[list[float], list[float]]:
    """Thresholds that let in group after group of one exit's rows, and each group's expected extra loss.

    Half a loss is added to every group, so that a group without a loss has a price that falls with its size.
    """
    sign = 1.0 if criterion.stricter_is_higher else -1.0
    sure_N = sign * scores_N.astype(np.float64)
    places = np.quantile(sure_N, np.linspace(1.0, 0.0, _GROUPS + 1)[1:])
    unit = 10.0**criterion.decimals
    outwards = np.floor(places * unit) / unit  # rounded so that the group's rows stay in
    outwards[-1] = sign * criterion.accept_all
    edges = sorted({max(float(edge), sign * criterion.accept_all) for edge in outwards}, reverse=True)
    group_N = np.searchsorted(-np.array(edges), -sure_N)
    sizes = np.bincount(group_N, minlength=len(edges)).astype(np.float64)
    sums = np.bincount(group_N, weights=extra_N, minlength=len(edges))
    extra = isotonic((sums + 0.5) / (sizes + 1.0), sizes + 1.0)
    return [sign * edge + 0.0 for edge in edges], extra  # + 0.0: never -0.0


def _thinned(flops: Sequence[float], losses: Sequence[float], most: int) -> list[int]:
    """At most so many steps of a path, first and last among them, evenly spaced in savings and in risk.

    Risk counts by its square root: near zero, where limits are wanted, rungs lie closer.
    """
    saved = flops[0] - np.array(flops)
    risk = np.sqrt(np.maximum.accumulate(np.maximum(np.array(losses) - losses[0], 0.0)))
    place = sum((part / part[-1] for part in (saved, risk) if part[-1] > 0.0), np.zeros(len(flops)))
    wanted = np.searchsorted(place, np.linspace(0.0, place[-1], most - 1), side="left")
    return sorted({0, *(int(step) for step in wanted if step < len(flops)), len(flops) - 1})


def _picked(losses_EN: Array, taken_N: Array) -> Array:
    result: Array = losses_EN[taken_N, np.arange(len(taken_N))]
    return result
