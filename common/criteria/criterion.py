"""What a criterion sees of an exit, and what all criteria can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

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


class Criterion(Protocol):
    """Accepts or passes on the rows of a batch at one exit."""

    name: str
    accept_all: float  # the threshold that accepts every row
    stricter_is_higher: bool  # whether raising the threshold accepts fewer rows
    decimals: int  # of a threshold that is chosen; 0: whole numbers
    keeps_state: bool  # whether more than one exit's probabilities decide; `accepts` serves only criteria without

    def check(self, threshold: float) -> None:
        """Raise ValueError unless `threshold` lies in the criterion's range (NaN: never accept)."""
        ...

    def score(self, outputs: Outputs, state: Tensors) -> tuple[Array, Tensors]:
        """What is compared with the threshold, [B], and the state for the next exit ([B, ...] each)."""
        ...

    def accepts(self, probs: Sequence[float], threshold: float) -> bool:
        """Decide about one row, from its class probabilities and without state; agrees with `decide`."""
        ...

    def decide(self, outputs: Outputs, state: Tensors, thresholds_B: Array) -> tuple[Array, Tensors]:
        """Return which rows are accepted ([B] bool) and the state for the next exit ([B, ...] each)."""
        ...


class Scored:
    """A criterion that compares a score with the threshold; scores and thresholds lie between 0 and 1."""

    name: str
    accept_all = 0.0
    stricter_is_higher = True
    decimals = 6
    keeps_state = False

    def check(self, threshold: float) -> None:
        """Raise ValueError unless the threshold lies between 0 and 1, or is NaN."""
        if not (np.isnan(threshold) or 0.0 <= threshold <= 1.0):
            raise ValueError(f"A {self.name} threshold is {threshold}. It must lie between 0 and 1.")

    def score(self, outputs: Outputs, state: Tensors) -> tuple[Array, Tensors]:
        """What is compared with the threshold, [B], and the state for the next exit."""
        raise NotImplementedError

    def decide(self, outputs: Outputs, state: Tensors, thresholds_B: Array) -> tuple[Array, Tensors]:
        """Accept where the score is at least the threshold, or at most, where stricter is lower."""
        scores_B, state = self.score(outputs, state)
        return (scores_B >= thresholds_B if self.stricter_is_higher else scores_B <= thresholds_B), state
