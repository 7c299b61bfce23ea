"""The Prometheus metrics of one tier, under the names of the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from common.serving.histogram import Histogram, Series
from common.serving.tally import Tally

_SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters and histograms of one tier, in a registry of their own.

    Children are looked up once and kept, because a lookup by label costs more than the count itself.
    """

    def __init__(self, tier: str) -> None:
        self.registry = CollectorRegistry()
        self._tier = tier
        self._answers = Tally(
            "offramp_answers",
            "Rows returned to their caller, by the tier that decided, exit and reason of degradation.",
            ("tier", "by", "exit", "degraded"),
        )
        self.registry.register(self._answers)
        self._refused = Counter(
            "offramp_refused_total", "Requests refused, by reason.", ("tier", "reason"), registry=self.registry
        )
        self._stage_seconds = self._histogram("stage_seconds", "Time of one run of a stage.", "stage")
        self._batch_rows = self._histogram("batch_rows", "Rows per run of a stage.", "stage", bounds=_ROWS)
        self._stage_children: dict[int, tuple[Series, Series]] = {}
        self._upstream_seconds = self._histogram(
            "upstream_seconds", "Time until upstream finished a request.", "upstream"
        )
        self._upstream_state = Gauge(
            "offramp_upstream_state", "1 while upstream answers, else 0.", ("tier", "upstream"), registry=self.registry
        )
        self._guaranteed = Gauge(
            "offramp_guaranteed",
            "1 where this tier runs what an operating point's certificate was issued for, 0 where it promises nothing.",
            ("tier", "operating_point"),
            registry=self.registry,
        )
        self.late = self._plain("offramp_late_answers", "Rows that upstream answered too late to be used.")
        self.audit = self._plain("offramp_audit_rows", "Rows served for another purpose than a caller's answer.")
        self.forwarded_bytes = self._plain(
            "offramp_forwarded_bytes", "Bytes of requests sent upstream, gRPC and HTTP/2 frame headers included."
        )
        self.request_seconds = self._histogram(
            "request_seconds", "Time from receiving a request to its last answer."
        ).labels(tier)
        self._queue_rows = Gauge(
            "offramp_queue_rows", "Rows that wait for a stage.", ("tier",), registry=self.registry
        ).labels(tier)

    def _histogram(self, name: str, text: str, *labels: str, bounds: Sequence[float] = _SECONDS) -> Histogram:
        histogram = Histogram(f"offramp_{name}", text, ("tier", *labels), bounds)
        self.registry.register(histogram)
        return histogram

    def _plain(self, name: str, text: str) -> Counter:
        return Counter(name, text, ("tier",), registry=self.registry).labels(self._tier)

    def answered(self, by: str, exit: int, degraded: str | None, rows: int) -> None:
        """Count rows that go back to their caller."""
        self._answers.add((self._tier, by, str(exit), degraded or ""), rows)

    def refused(self, reason: str) -> None:
        """Count a refused request."""
        self._refused.labels(self._tier, reason).inc()

    def stage_ran(self, stage: int, seconds: float, rows: int) -> None:
        """Record one run of a stage."""
        children = self._stage_children.get(stage)
        if children is None:
            labels = (self._tier, str(stage))
            children = (self._stage_seconds.labels(*labels), self._batch_rows.labels(*labels))
            self._stage_children[stage] = children
        children[0].observe(seconds)
        children[1].observe(rows)

    def guaranteed(self, operating_point: str, holds: bool) -> None:
        """Record whether an operating point's certificate holds on this tier."""
        self._guaranteed.labels(self._tier, operating_point).set(1 if holds else 0)

    def upstream_took(self, upstream: str, seconds: float) -> None:
        """Record how long upstream needed for one request."""
        self._upstream_seconds.labels(self._tier, upstream).observe(seconds)

    def upstream_is(self, upstream: str, up: bool) -> None:
        """Record whether an upstream address answers."""
        self._upstream_state.labels(self._tier, upstream).set(1 if up else 0)

    def upstream_gone(self, upstream: str) -> None:
        """Forget an address that the name no longer has."""
        self._upstream_state.remove(self._tier, upstream)

    def watch_queue(self, rows: Callable[[], float]) -> None:
        """Read the queue's length whenever the metrics are scraped."""
        self._queue_rows.set_function(rows)

    def text(self) -> bytes:
        """The Prometheus text exposition."""
        result: bytes = generate_latest(self.registry)
        return result
