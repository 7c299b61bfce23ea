"""How tables write means over seeds and paired gaps; the intervals are those of `calibration.intervals`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calibration import intervals
from common.types import Array


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over seeds; `half` is half of its two-sided 95 % interval by Student's t, 0 for a single value."""

    mean: float
    half: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.half:.2f}" if self.count > 1 else f"{self.mean:.2f}"


def over_seeds(values: Sequence[float]) -> Mean:
    """The mean of one value per seed."""
    found = intervals.over_seeds(values)
    half = found.interval.high - found.mean if found.interval is not None else 0.0
    return Mean(mean=found.mean, half=half, count=found.seeds)


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
    drop = intervals.gap_interval(reference_N, right_N)
    upper = intervals.drop_upper_limit(worse, better, rows, intervals.CONFIDENCE)
    return Gap(gap=(worse - better) / rows, low=drop.low, high=drop.high, upper=upper)
