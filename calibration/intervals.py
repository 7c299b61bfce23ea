"""Intervals: how far a figure may lie from what more rows, or more seeds, would show.

Shares get exact intervals (`calibration.binomial`). The difference of two accuracies on the same rows gets a paired
one (Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", 2005), narrower than
two separate intervals would say. A mean over a few seeds gets Student's ("The probable error of a mean", Biometrika 6,
1908). Everything else, such as the area under a curve, gets a percentile bootstrap over rows (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from calibration.binomial import lower_limit, upper_limit
from common.types import Array

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Two-sided: the true value lies outside in at most 1 - confidence of all repetitions."""

    low: float
    high: float

    def document(self) -> list[float]:
        """As JSON documents carry it."""
        return [self.low, self.high]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over seeds."""

    mean: float
    interval: Interval | None  # one seed says nothing about another
    seeds: int


def share_interval(count: int, rows: int, confidence: float = CONFIDENCE) -> Interval:
    """Of a share of independent rows, after Clopper and Pearson (1934); no rows: between 0 and 1."""
    delta = (1.0 - confidence) / 2.0
    return Interval(low=lower_limit(count, rows, delta), high=upper_limit(count, rows, delta))


def gap_interval(right_N: Array, reference_N: Array, confidence: float = CONFIDENCE) -> Interval:
    """Of the accuracy of one answer minus that of another, both to the same rows; after Agresti and Min (2005).

    Args:
        right_N: where the answer is right, [N] bool.
        reference_N: where the other one is.
        confidence: of the interval.
    """
    worse = int((reference_N & ~right_N).sum())
    better = int((right_N & ~reference_N).sum())
    one_sided = (1.0 + confidence) / 2.0
    return Interval(
        low=-drop_upper_limit(worse, better, len(right_N), one_sided),
        high=drop_upper_limit(better, worse, len(right_N), one_sided),
    )


def drop_upper_limit(worse: int, better: int, rows: int, confidence: float) -> float:
    """One-sided upper confidence limit of a drop in accuracy between two answers to the same rows.

    Args:
        worse: rows that only the reference answers right.
        better: rows that only the other answers right.
        rows: all rows.
        confidence: of the limit.

    Returns:
        Agresti and Min's limit: half a row is added to each of the four cells of the paired table, so that the
        limit stays above 0 when nothing differs.
    """
    b, c, n = worse + 0.5, better + 0.5, rows + 2.0
    deviation = math.sqrt(max(b + c - (b - c) ** 2 / n, 0.0)) / n
    return (b - c) / n + NormalDist().inv_cdf(confidence) * deviation


def over_seeds(values: Sequence[float], confidence: float = CONFIDENCE) -> Mean:
    """Mean of one figure per seed.

    Raises:
        ValueError: without any value.
    """
    if not values:
        raise ValueError("There is no value to take the mean of.")
    mean, seeds = float(np.mean(values)), len(values)
    if seeds == 1:
        return Mean(mean=mean, interval=None, seeds=1)
    half = student_quantile((1.0 + confidence) / 2.0, seeds - 1) * float(np.std(values, ddof=1)) / math.sqrt(seeds)
    return Mean(mean=mean, interval=Interval(low=mean - half, high=mean + half), seeds=seeds)


def gap_over_seeds(ours: Sequence[float], theirs: Sequence[float], confidence: float = CONFIDENCE) -> Mean:
    """Mean difference of two figures that were measured with the same seeds, paired by seed."""
    return over_seeds([a - b for a, b in zip(ours, theirs, strict=True)], confidence)


def bootstrap(
    statistic: Callable[[Array], float], rows: int, *, draws: int = 200, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """Percentile interval of a statistic under drawing rows with replacement.

    Args:
        statistic: takes row numbers [N]; draws for which it is NaN are left out.
        rows: N.
        draws: how many; the same seed gives the same interval.
        confidence: of the interval.
        seed: of the draws.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    values = [statistic(rng.integers(0, rows, rows)) for _ in range(draws)]
    tail = 50.0 * (1.0 - confidence)
    low, high = np.nanpercentile(values, (tail, 100.0 - tail))
    return Interval(low=float(low), high=float(high))


def student_quantile(p: float, freedom: int) -> float:
    """The p-quantile of Student's t distribution with a whole number of degrees of freedom."""
    if not 0.5 <= p < 1.0 or freedom < 1:
        raise ValueError(f"p is {p} and freedom {freedom}. They must be from 0.5 to below 1, and at least 1.")
    low, high = 0.0, 1.0
    while _student_below(high, freedom) < p:
        high *= 2.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2.0
        low, high = (middle, high) if _student_below(middle, freedom) < p else (low, middle)
    return high


def _student_below(t: float, freedom: int) -> float:
    """P(T <= t), t >= 0: the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, term, total = math.cos(angle), 1.0, 0.0
    odd = freedom % 2
    for k in range(1 + odd, freedom, 2):  # powers 0, 2, ... or 1, 3, ... of the cosine, below freedom - 1
        total += term
        term *= cosine**2 * k / (k + 1)
    if odd:
        inside = 2.0 / math.pi * (angle + math.sin(angle) * cosine * total)
    else:
        inside = math.sin(angle) * total
    return (1.0 + inside) / 2.0
