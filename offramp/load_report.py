"""What a load run showed, as plain values: the content of `offramp load --json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from offramp.load_run import Outcome, Plan

Document = dict[str, Any]


def report(plan: Plan, outcome: Outcome) -> Document:
    """Counts, rates and latencies in milliseconds; a group without samples is null."""
    samples = outcome.samples
    judged = [sample.right for sample in samples if sample.right is not None]
    answered_here = [s for s in samples if s.degraded is None and s.tier == s.entry]
    forwarded = [s for s in samples if s.degraded is None and s.tier != s.entry]
    degraded = [s for s in samples if s.degraded is not None]
    return {
        "url": plan.url,
        "rate": plan.rate,
        "seconds": plan.seconds,
        "sent": outcome.sent,
        "not_sent": outcome.not_sent,
        "completed": len(samples),
        "errors": dict(sorted(outcome.errors.items())),
        "achieved_rate": round(len(samples) / outcome.elapsed_s, 3) if outcome.elapsed_s else 0.0,
        "lateness_ms": _ms(outcome.lateness_s),
        "latency_ms": {
            "all": _latency([s.latency_s for s in samples]),
            "local": _latency([s.latency_s for s in answered_here]),
            "forwarded": _latency([s.latency_s for s in forwarded]),
            "degraded": _latency([s.latency_s for s in degraded]),
            "due": _latency(due_latencies(plan, outcome)),
        },
        "exits": _count(str(sample.exit) for sample in samples),
        "tiers": _count(sample.tier for sample in samples),
        "degraded": _count(sample.degraded for sample in degraded if sample.degraded),
        "accuracy": round(sum(judged) / len(judged), 6) if judged else None,
        "labelled": len(judged),
    }


def due_latencies(plan: Plan, outcome: Outcome) -> list[float]:
    """Seconds for every request that was due; one without an answer counts as the longest wait.

    Percentiles of answered requests alone look better the more requests a server drops.
    """
    answered = [sample.latency_s for sample in outcome.samples]
    unanswered = outcome.sent + outcome.not_sent - len(answered)
    return answered + [plan.give_up_s] * unanswered


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the ordered values do not exceed (nearest rank)."""
    rank = -(-len(ordered) * share // 1)
    return ordered[max(int(rank) - 1, 0)]


def _latency(seconds: Sequence[float]) -> Document | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    return {
        "count": len(ordered),
        "mean": _ms(sum(ordered) / len(ordered)),
        "p50": _ms(percentile(ordered, 0.5)),
        "p90": _ms(percentile(ordered, 0.9)),
        "p95": _ms(percentile(ordered, 0.95)),
        "p99": _ms(percentile(ordered, 0.99)),
        "max": _ms(ordered[-1]),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _count(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
