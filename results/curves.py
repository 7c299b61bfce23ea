"""Accuracy at a share of the cost: thresholds are chosen on calibration rows, accuracy and cost measured on others.

Tensor names carry their axes: N rows of a split, C classes, E exits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from common.types import Array
from results.stats import paired_gap

_STEPS = 200  # quantiles tried as thresholds


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What every exit says about a split."""

    probs_ENC: Array
    labels_N: Array
    cost_E: Array  # of a row that leaves there, in shares of the network without exits
    surest: bool = False  # a row that no exit is sure of gets the surest answer (SDN), not the last

    @cached_property
    def sure_EN(self) -> Array:
        """Largest probability of every exit."""
        sure: Array = self.probs_ENC.max(axis=2)
        return sure

    @cached_property
    def right_EN(self) -> Array:
        """Whether every exit's answer is right."""
        right: Array = self.probs_ENC.argmax(axis=2) == self.labels_N
        return right

    def outcome(self, thresholds_E: Sequence[float]) -> tuple[Array, float]:
        """Which rows are answered right [N], and the mean cost; the last exit's threshold counts where `surest`."""
        sure_EN, rows_N = self.sure_EN, np.arange(len(self.labels_N))
        last = len(self.cost_E) - 1
        taken_N = np.full(len(rows_N), last)
        left_N = np.ones(len(rows_N), bool)
        for number, threshold in enumerate(thresholds_E[: last + self.surest]):
            leaves_N = left_N & (sure_EN[number] >= threshold)
            taken_N[leaves_N], left_N = number, left_N & ~leaves_N
        cost = float(self.cost_E[taken_N].mean())
        if self.surest:
            taken_N[left_N] = sure_EN[:, left_N].argmax(axis=0)
        right_N: Array = self.right_EN[taken_N, rows_N]
        return right_N, cost


def one_threshold(rows: Answers, budget: float) -> list[float]:
    """The threshold, the same at every exit, with the highest accuracy on these rows at a mean cost up to `budget`."""
    exits = len(rows.cost_E)
    tried = np.unique(np.quantile(rows.sure_EN, np.linspace(0, 1, _STEPS + 1)))
    best, best_right = [0.0] * exits, -1.0
    for threshold in tried:
        right_N, cost = rows.outcome([float(threshold)] * exits)
        if cost <= budget and right_N.mean() > best_right:
            best, best_right = [float(threshold)] * exits, float(right_N.mean())
    return best


def threshold_per_exit(rows: Answers, budget: float, *, rounds: int = 3) -> list[float]:
    """As `one_threshold`, then each exit's threshold moves alone and in pairs while accuracy on these rows rises."""
    best = one_threshold(rows, budget)
    best_right = float(rows.outcome(best)[0].mean())
    early = len(rows.cost_E) - 1
    tried = [np.unique(np.quantile(sure_N, np.linspace(0, 1, 21))) for sure_N in rows.sure_EN[:early]]
    for _ in range(rounds):
        before = best_right
        for first in range(early):
            for second in range(first, early):
                for one in tried[first]:
                    for other in tried[second] if second > first else (best[second],):
                        moved = [*best]
                        moved[second], moved[first] = float(other), float(one)
                        right_N, cost = rows.outcome(moved)
                        if cost <= budget and right_N.mean() > best_right:
                            best, best_right = moved, float(right_N.mean())
        if best_right == before:
            break
    return best


def point(
    rows: Answers, test: Answers, thresholds: Sequence[float], reference_N: Array | None = None
) -> dict[str, Any]:
    """What thresholds give on both splits, and the paired gap to the test rows that a reference gets right."""
    chosen_N, chosen_cost = rows.outcome(thresholds)
    right_N, cost = test.outcome(thresholds)
    return {
        "thresholds": [float(one) for one in thresholds],
        "calibration_cost": chosen_cost,
        "calibration_accuracy": float(chosen_N.mean()),
        "cost": cost,
        "accuracy": float(right_N.mean()),
        **({} if reference_N is None else asdict(paired_gap(right_N, reference_N))),
    }
