"""Medians over rounds, and how sure they are.

One round measures every contender once, one after the other. What is compared is taken per round (a ratio of
two contenders of the same round), then the median over the rounds, with a percentile bootstrap over rounds as
its 95 % interval (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A median over rounds with its 95 % interval."""

    median: float
    low: float
    high: float
    rounds: int

    def document(self) -> dict[str, float]:
        """As results carry it."""
        return {"median": self.median, "low": self.low, "high": self.high, "rounds": self.rounds}


def estimate(values: Sequence[float]) -> Estimate:
    """The median of one value per round."""
    given = np.asarray(values, np.float64)
    draws = np.random.default_rng(0).integers(0, len(given), (_DRAWS, len(given)))
    medians = np.median(given[draws], axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return Estimate(median=float(np.median(given)), low=float(low), high=float(high), rounds=len(given))


def ratio(of: Sequence[float], to: Sequence[float]) -> Estimate:
    """The median of the per-round ratios `of / to`."""
    return estimate([a / b for a, b in zip(of, to, strict=True)])
