"""What a criterion sees of an exit, and what all criteria can do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from common.criteria.probabilities import softmax
from common.types import Array, Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What an exit says about a batch."""

    probs_BC: Array  # calibrated class probabilities
    labels_B: Array  # the answers, the most probable classes
    gate_B: Array | None = None  # logit of the learned gate; None: the exit has none

    @classmethod
    def of(cls, logits_BC: Array, temperature: float = 1.0, gate_B: Array | None = None) -> Outputs:
        """From what an exit writes."""
        probs_BC = softmax(logits_BC, temperature)
        return cls(probs_BC=probs_BC, labels_B=probs_BC.argmax(axis=1), gate_B=gate_B)


# Names of state; no tensor of a bundle can be called so.
LABEL = "exits:label"  # what the exit before answered
AGREED = "exits:agreed"  # how many exits in a row have answered that


class Criterion(Protocol):
    """Accepts or passes on the rows of a batch at one exit."""

    name: str
    accept_all: float  # the threshold that accepts every row
    stricter_is_higher: bool  # whether raising the threshold accepts fewer rows
    decimals: int  # of a threshold that is chosen; 0: whole numbers
    by_row: bool  # whether an exit's class probabilities decide alone, so that `accepts` may be asked
    state: Mapping[str, str]  # what `score` leaves for the next exit: name -> dtype, one number per row

    def check(self, threshold: float) -> None:
        """Raise ValueError unless `threshold` lies in the criterion's range (NaN: never accept)."""
        ...

    def score(self, outputs: Outputs, state: Tensors) -> tuple[Array, Tensors]:
        """What is compared with the threshold, [B], and the state for the next exit ([B, ...] each)."""
        ...

    def accepts(self, probs: Sequence[float], threshold: float) -> bool:
        """Decide about one row from its class probabilities, where `by_row` says so; agrees with `decide`."""
        ...

    def decide(self, outputs: Outputs, state: Tensors, thresholds_B: Array) -> tuple[Array, Tensors]:
        """Return which rows are accepted ([B] bool) and the state for the next exit ([B, ...] each)."""
        ...


class Compared:
    """A criterion that compares its score with the threshold."""

    stricter_is_higher = True
    by_row = True
    state: Mapping[str, str] = MappingProxyType({})

    def score(self, outputs: Outputs, state: Tensors) -> tuple[Array, Tensors]:
        """What is compared with the threshold, [B], and the state for the next exit."""
        raise NotImplementedError

    def decide(self, outputs: Outputs, state: Tensors, thresholds_B: Array) -> tuple[Array, Tensors]:
        """Accept where the score is at least the threshold, or at most, where stricter is lower."""
        scores_B, state = self.score(outputs, state)
        return (scores_B >= thresholds_B if self.stricter_is_higher else scores_B <= thresholds_B), state


class Scored(Compared):
    """One whose scores and thresholds lie between 0 and 1."""

    name: str
    accept_all = 0.0
    decimals = 6

    def check(self, threshold: float) -> None:
        """Raise ValueError unless the threshold lies between 0 and 1, or is NaN."""
        if not (math.isnan(threshold) or 0.0 <= threshold <= 1.0):
            raise ValueError(f"A {self.name} threshold is {threshold}. It must lie between 0 and 1.")
