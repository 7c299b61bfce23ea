"""A histogram for one event loop: an observation is a bisection and two additions.

prometheus_client's own takes locks and walks all buckets, several times per request of a few hundred
microseconds; this one is read by the same registry, as a custom collector.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import HistogramMetricFamily


class Series:
    """The observations under one set of label values."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Histogram:
    """Series by label values, collected under one name.

    Args:
        name: of the metric.
        text: its help line.
        labels: names of the labels.
        bounds: upper bounds of the buckets, ascending; infinity is added.
    """

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._bounds = tuple(bounds)
        self._series: dict[tuple[str, ...], Series] = {}

    def labels(self, *values: str) -> Series:
        """The series of these label values, made when it is new."""
        if values not in self._series:
            self._series[values] = Series(self._bounds)
        return self._series[values]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """What the registry reads."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        edges = [*map(str, self._bounds), "+Inf"]
        for values, series in self._series.items():
            buckets, below = [], 0
            for edge, count in zip(edges, series.counts, strict=True):
                below += count
                buckets.append((edge, below))
            family.add_metric(values, buckets, series.total)
        yield family
