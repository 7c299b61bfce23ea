"""Means over seeds with their intervals, and paired gaps between two answers to the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

from common.types import Array

_T95 = (0.0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # two-sided 95 %, by degrees of freedom


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over seeds; `half` is half of its two-sided 95 % interval by Student's t, 0 for a single value."""

    mean: float
    half: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.half:.2f}" if self.count > 1 else f"{self.mean:.2f}"


def over_seeds(values: Sequence[float]) -> Mean:
    """The mean of one value per seed, up to ten."""
    given = np.asarray(values, np.float64)
    spread = float(given.std(ddof=1)) if len(given) > 1 else 0.0
    return Mean(mean=float(given.mean()), half=_T95[len(given) - 1] * spread / sqrt(len(given)), count=len(given))


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How much less accurate one answer is than another, as a share of the rows."""

    gap: float
    low: float  # two-sided 95 % interval
    high: float
    upper: float  # one-sided 95 % limit


def paired_gap(right_N: Array, reference_N: Array) -> Gap:
    """The drop from a reference's answers to others on the same rows, with Agresti and Min's intervals (2005).

    Args:
        right_N: whether the answer is right, bool.
        reference_N: whether the reference's is.
    """
    worse, better, rows = int((reference_N & ~right_N).sum()), int((right_N & ~reference_N).sum()), len(right_N)
    b, c, n = worse + 0.5, better + 0.5, rows + 2.0
    centre, deviation = (b - c) / n, sqrt(max(b + c - (b - c) ** 2 / n, 0.0)) / n
    two, one = NormalDist().inv_cdf(0.975) * deviation, NormalDist().inv_cdf(0.95) * deviation
    return Gap(gap=(worse - better) / rows, low=centre - two, high=centre + two, upper=centre + one)
