"""A counter with labels for one event loop: counting is an addition in a dictionary.

As with the histogram: prometheus_client's own takes a lock and asks several times whether it may count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily


class Tally:
    """Counts by label values, collected under one name.

    Args:
        name: of the metric, without `_total`.
        text: its help line.
        labels: names of the labels.
    """

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, values: tuple[str, ...], count: int) -> None:
        """Count so many more under these label values."""
        self._counts[values] = self._counts.get(values, 0) + count

    def collect(self) -> Iterable[CounterMetricFamily]:
        """What the registry reads."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in self._counts.items():
            family.add_metric(values, count)
        yield family
