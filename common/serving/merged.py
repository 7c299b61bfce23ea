"""Prometheus text expositions of several processes of one tier, added up."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_LEAST = "offramp_upstream_state"  # up only where every process says so; all other gauges are sums
_Key = tuple[str, tuple[tuple[str, str], ...]]  # name and labels of a sample


class Exposition:
    """Samples by name and labels."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}  # without samples
        self._values: dict[str, dict[_Key, float]] = {}

    def add(self, text: bytes) -> None:
        """Add what one process exposes."""
        for family in text_string_to_metric_families(text.decode()):
            self._family(family)
            for sample in family.samples:
                self._add(family, (sample.name, tuple(sorted(sample.labels.items()))), sample.value)

    def add_counts(self, ended: Exposition) -> None:
        """Add what processes had counted that have ended: their gauges mean nothing any more."""
        for name, values in ended._values.items():
            if ended._families[name].type != "gauge":
                for key, value in values.items():
                    self._add(ended._families[name], key, value)

    def text(self) -> bytes:
        """All of it as one exposition."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        result: bytes = generate_latest(registry)
        return result

    def collect(self) -> Iterable[Metric]:
        """What the registry reads."""
        for name, family in self._families.items():
            metric = Metric(family.name, family.documentation, family.type)
            metric.samples = [
                Sample(sample, dict(labels), value) for (sample, labels), value in self._values[name].items()
            ]
            yield metric

    def _family(self, family: Metric) -> dict[_Key, float]:
        self._families.setdefault(family.name, family)
        return self._values.setdefault(family.name, {})

    def _add(self, family: Metric, key: _Key, value: float) -> None:
        values = self._family(family)
        if key not in values:
            values[key] = value
        elif family.name == _LEAST:
            values[key] = min(values[key], value)
        elif not key[0].endswith("_created"):
            values[key] += value
