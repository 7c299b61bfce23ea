"""Criteria: the rules that accept an exit's answer.

Each criterion is one small object. `decide` sees a batch, the state that earlier exits left for it, and one
threshold per row; a threshold of NaN never accepts. The last exit accepts whatever the criterion says; the
caller takes care of that.

Sources: max-probability (Kaya et al., "Shallow-Deep Networks", 2019), entropy (Teerapittayanon et al.,
"BranchyNet", 2016; normalised to 0..1 as in "DDNN", 2017), margin (the gap between the two most probable
classes, a standard measure of active learning).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from common.types import Array, Tensors


@dataclass(frozen=True, slots=True)
class Outputs:
    """What an exit says about a batch."""

    logits_BC: Array
    probs_BC: Array  # softmax(logits / temperature)


class Criterion(Protocol):
    """Accepts or passes on the rows of a batch at one exit."""

    name: str
    accept_all: float  # the threshold that accepts every row
    stricter_is_higher: bool  # whether raising the threshold accepts fewer rows
    keeps_state: bool  # whether `decide` leaves state for later exits; `accepts` and `score` serve those without

    def check(self, threshold: float) -> None:
        """Raise ValueError unless `threshold` lies in the criterion's range (NaN: never accept)."""
        ...

    def score(self, outputs: Outputs) -> Array:
        """What is compared with the threshold, [B], for a criterion that needs no state."""
        ...

    def accepts(self, probs: Sequence[float], threshold: float) -> bool:
        """Decide about one row, from its class probabilities and without state; agrees with `decide`."""
        ...

    def decide(self, outputs: Outputs, state: Tensors, thresholds_B: Array) -> tuple[Array, Tensors]:
        """Return which rows are accepted ([B] bool) and the state for the next exit ([B, ...] each)."""
        ...


def softmax(logits_BC: Array, temperature: float = 1.0) -> Array:
    """Calibrated class probabilities, [B, C] float32, without overflow for any finite logits.

    Dividing logits by one number per exit is temperature scaling (Guo et al., "On Calibration of Modern
    Neural Networks", 2017).
    """
    scaled = logits_BC.astype(np.float32, copy=False)
    if temperature != 1.0:
        scaled = scaled / np.float32(temperature)
    exp = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    exp /= exp.sum(axis=1, keepdims=True)
    result: Array = exp
    return result


def softmax_row(logits: Sequence[float], temperature: float = 1.0) -> tuple[int, list[float]]:
    """The label and the calibrated probabilities of one row, in plain Python."""
    top = max(logits)
    exp = [math.exp((z - top) / temperature) for z in logits]
    total = sum(exp)
    return logits.index(top), [e / total for e in exp]


class _Bounded:
    """Shared by criteria whose score and threshold lie between 0 and 1."""

    name: str
    keeps_state = False

    def check(self, threshold: float) -> None:
        """Raise ValueError unless the threshold lies between 0 and 1, or is NaN."""
        if not (np.isnan(threshold) or 0.0 <= threshold <= 1.0):
            raise ValueError(f"A {self.name} threshold is {threshold}. It must lie between 0 and 1.")


class MaxProbability(_Bounded):
    """Accept an exit's answer when its largest class probability reaches the threshold."""

    name = "max-probability"
    accept_all = 0.0
    stricter_is_higher = True

    def score(self, outputs: Outputs) -> Array:
        """Largest class probability, [B]."""
        result: Array = outputs.probs_BC.max(axis=1)
        return result

    def accepts(self, probs: Sequence[float], threshold: float) -> bool:
        """Accept where the largest probability is at least the threshold."""
        return max(probs) >= threshold

    def decide(self, outputs: Outputs, state: Tensors, thresholds_B: Array) -> tuple[Array, Tensors]:
        """Accept where the score is at least the threshold."""
        return self.score(outputs) >= thresholds_B, state


class Entropy(_Bounded):
    """Accept an exit's answer when its entropy, divided by log C, is at most the threshold."""

    name = "entropy"
    accept_all = 1.0
    stricter_is_higher = False

    def score(self, outputs: Outputs) -> Array:
        """Normalised entropy between 0 (certain) and 1 (uniform), [B]."""
        p_BC = outputs.probs_BC
        logs = np.log(np.maximum(p_BC, np.finfo(np.float32).tiny))
        entropy: Array = -(p_BC * logs).sum(axis=1) / np.log(max(p_BC.shape[1], 2))
        return np.clip(entropy, 0.0, 1.0)

    def accepts(self, probs: Sequence[float], threshold: float) -> bool:
        """Accept where the normalised entropy is at most the threshold."""
        entropy = -sum(p * math.log(p) for p in probs if p > 0.0) / math.log(max(len(probs), 2))
        return entropy <= threshold

    def decide(self, outputs: Outputs, state: Tensors, thresholds_B: Array) -> tuple[Array, Tensors]:
        """Accept where the score is at most the threshold."""
        return self.score(outputs) <= thresholds_B, state


class Margin(_Bounded):
    """Accept an exit's answer when its two largest class probabilities lie far enough apart."""

    name = "margin"
    accept_all = 0.0
    stricter_is_higher = True

    def score(self, outputs: Outputs) -> Array:
        """Largest minus second largest class probability, [B]."""
        if outputs.probs_BC.shape[1] < 2:
            return np.ones(len(outputs.probs_BC), np.float32)
        top = np.partition(outputs.probs_BC, -2, axis=1)
        gap: Array = top[:, -1] - top[:, -2]
        return gap

    def accepts(self, probs: Sequence[float], threshold: float) -> bool:
        """Accept where the two largest probabilities are at least the threshold apart."""
        first, second = sorted(probs, reverse=True)[:2] if len(probs) > 1 else (1.0, 0.0)
        return first - second >= threshold

    def decide(self, outputs: Outputs, state: Tensors, thresholds_B: Array) -> tuple[Array, Tensors]:
        """Accept where the score is at least the threshold."""
        return self.score(outputs) >= thresholds_B, state


CRITERIA: dict[str, Criterion] = {c.name: c for c in (MaxProbability(), Entropy(), Margin())}
