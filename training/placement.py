"""Which exits pay for themselves, and which to keep.

An exit costs its head for every row that comes by, and saves the rest of the way for every row that leaves there.

The greedy placement looks at every candidate once, from the last to the first, and keeps it when the mean cost
falls; then, from the first to the last, it leaves out again what no longer pays. So its work grows linearly with
the number of candidates, in the manner of Baccarelli et al., "Optimized training and scalable implementation of
Conditional Deep Neural Networks with early exits for Fog-supported IoT applications" (Information Sciences, 2020).

Tensor names carry their axes: N rows of a split, C classes, E exits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.served import Said
from calibration.thresholds import ExitScores, accepts, candidates
from common.criteria import CRITERIA, Criterion, Outputs
from common.errors import ConfigError
from common.rule import Rule
from common.types import Array
from training.cost import Costs

_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What every exit says about rows that nothing was trained on, and what it costs to ask."""

    scores: ExitScores
    labels_N: Array
    costs: Costs
    criterion: Criterion

    @classmethod
    def of(
        cls,
        logits: Sequence[Array],
        labels_N: Array,
        costs: Costs,
        *,
        criterion: str = "max-probability",
        gates: Mapping[int, Array] | None = None,
        rule: Rule | None = None,
    ) -> Measured:
        """From logits [N, C] of every exit, and those [N] of the gates by exit; a rule says what `criterion` would."""
        if rule is not None:
            said = Said(logits=tuple(logits), gates=tuple((gates or {}).get(number) for number in range(len(logits))))
            scores = ExitScores.of(said, rule)
            return cls(scores=scores, labels_N=labels_N, costs=costs, criterion=rule.criterion)
        if criterion not in CRITERIA:
            raise ConfigError(f"criterion is {criterion!r}. It must be one of {', '.join(sorted(CRITERIA))}.")
        named = CRITERIA[criterion]
        learned = gates or {}
        outputs = [Outputs.of(one, gate_B=learned.get(number)) for number, one in enumerate(logits)]
        return cls(scores=ExitScores.scored(outputs, named), labels_N=labels_N, costs=costs, criterion=named)

    def outcome(self, exits: Sequence[int], thresholds: Sequence[float]) -> tuple[float, float, Array]:
        """Mean FLOPs per row, accuracy, and where each row leaves [N], when only `exits` are there.

        Args:
            exits: numbers of exits in order, the last one among them.
            thresholds: one for each exit of the network.
        """
        taken_N = np.full(len(self.labels_N), exits[-1])
        for number in reversed(exits[:-1]):
            taken_N[accepts(self.criterion, self.scores.scores_EN[number], thresholds[number])] = number
        cost_E = np.zeros(len(self.scores.scores_EN))
        cost_E[list(exits)] = self.costs.leaving(tuple(exits))
        right_N = self.scores.labels_EN[taken_N, np.arange(len(taken_N))] == self.labels_N
        return float(cost_E[taken_N].mean()), float(right_N.mean()), taken_N


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What an early exit is worth at an operating point."""

    exit: int
    rate: float  # share of the rows that leave there
    mean_flops: float  # per row, with the exit
    mean_flops_without: float
    accuracy: float
    accuracy_without: float

    @property
    def pays(self) -> bool:
        """Whether rows cost less with the exit than without."""
        return self.mean_flops < self.mean_flops_without

    def __str__(self) -> str:
        """A sentence for a user."""
        verb = "pays" if self.pays else "does not pay"
        return (
            f"Exit {self.exit} {verb}: {self.rate:.1%} of the rows leave there, and a row takes "
            f"{self.mean_flops:,.0f} FLOPs on average with it, {self.mean_flops_without:,.0f} without."
        )


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The exits to keep."""

    kept: tuple[int, ...]  # numbers of exits, the last one among them
    mean_flops: float  # per row, on the rows that it was chosen on
    accuracy: float


def worth(measured: Measured, thresholds: Sequence[float]) -> list[Worth]:
    """What every early exit is worth, the others as they are.

    Args:
        measured: on rows that the thresholds were not chosen on, or the figures flatter.
        thresholds: one per exit; NaN never accepts.
    """
    everyone = list(range(len(measured.costs.exits)))
    flops, accuracy, taken_N = measured.outcome(everyone, thresholds)
    found = []
    for number in everyone[:-1]:
        without, other, _ = measured.outcome([e for e in everyone if e != number], thresholds)
        found.append(
            Worth(
                exit=number,
                rate=float((taken_N == number).mean()),
                mean_flops=flops,
                mean_flops_without=without,
                accuracy=accuracy,
                accuracy_without=other,
            )
        )
    return found


def place_greedily(measured: Measured, *, target_drop: float = 0.001) -> Placement:
    """Choose the exits to keep.

    Each exit's threshold is the lowest at which the rows that it accepts lose at most `target_drop` of accuracy
    against the last exit's answer; thresholds are set apart from one another, in parallel.

    Args:
        measured: every candidate, on the validation split.
        target_drop: share of the rows.
    """
    last = len(measured.costs.exits) - 1
    thresholds = [_own_threshold(measured, number, target_drop) for number in range(last)] + [0.0]
    kept = [last]
    flops, accuracy, _ = measured.outcome(kept, thresholds)
    for number in reversed(range(last)):
        found, right, _ = measured.outcome([number, *kept], thresholds)
        if found < flops:
            kept, flops, accuracy = [number, *kept], found, right
    for number in kept[:-1]:
        without = [other for other in kept if other != number]
        found, right, _ = measured.outcome(without, thresholds)
        if found <= flops:
            kept, flops, accuracy = without, found, right
    return Placement(kept=tuple(kept), mean_flops=flops, accuracy=accuracy)


def _own_threshold(measured: Measured, number: int, target_drop: float) -> float:
    scores_N = measured.scores.scores_EN[number]
    right_N = measured.scores.labels_EN[number] == measured.labels_N
    lost_N = (measured.scores.labels_EN[-1] == measured.labels_N).astype(np.float64) - right_N
    best = math.nan
    for threshold in candidates(measured.criterion, scores_N, _STEPS):  # the strictest first
        accepted_N = accepts(measured.criterion, scores_N, threshold)
        if accepted_N.any() and lost_N[accepted_N].mean() > target_drop:
            break
        best = threshold
    return best
