"""Do probabilities mean what they say? Expected calibration error, Brier score, reliability diagram.

Of the answers given with confidence 0.9, nine in ten should be right. The expected calibration error is the mean
distance between confidence and accuracy over bins of confidence (Guo et al., "On Calibration of Modern Neural
Networks", 2017); a network that is always equally unsure can have none. The Brier score ("Verification of forecasts
expressed in terms of probability", 1950) also asks that the probabilities tell right from wrong.

Tensor names carry their axes: N rows of a split, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from common.types import Array

BINS = 15


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Rows whose answer was given with about the same confidence."""

    rows: int
    confidence: float  # mean
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How honest an exit's probabilities are."""

    ece: float  # expected calibration error, 0..1
    brier: float  # mean squared distance of the probabilities from the truth, 0..2
    bins: tuple[Bin, ...]  # those with rows, least confident first

    def document(self) -> dict[str, Any]:
        """As JSON documents carry it."""
        return {"ece": self.ece, "brier": self.brier, "bins": [dict(vars(one)) for one in self.bins]}


def reliability(probs_NC: Array, labels_N: Array, bins: int = BINS) -> Reliability:
    """Measure probabilities [N, C] against labels, in bins of equal width."""
    probs_NC = probs_NC.astype(np.float64)
    rows = np.arange(len(labels_N))
    answers_N = probs_NC.argmax(axis=1)
    confidence_N, right_N = probs_NC[rows, answers_N], answers_N == labels_N
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for number in np.unique(bin_N):
        here_N = bin_N == number
        found.append(
            Bin(
                rows=int(here_N.sum()),
                confidence=float(confidence_N[here_N].mean()),
                accuracy=float(right_N[here_N].mean()),
            )
        )
    ece = sum(one.rows * abs(one.confidence - one.accuracy) for one in found) / len(labels_N)
    off_NC = probs_NC.copy()
    off_NC[rows, labels_N] -= 1.0
    return Reliability(ece=ece, brier=float((off_NC**2).sum(axis=1).mean()), bins=tuple(found))
