"""What is said of one way's requests, and how two ways compare on the same requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from offramp.load_report import percentile

Lists = dict[str, Any]  # as benchmarks.fog.load gives them

_DRAWS = 400
OVERALL: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda ms: float(ms.mean()),
    "p95": lambda ms: _rank(ms, 0.95),
    "p99": lambda ms: _rank(ms, 0.99),
}


def _rank(ms: np.ndarray, share: float) -> float:
    return float(percentile(np.sort(ms).tolist(), share))


def joined(rounds: Sequence[Lists]) -> Lists:
    """The requests of several rounds as one list."""
    whole: Lists = {}
    for key, value in rounds[0].items():
        values = [each[key] for each in rounds]
        if isinstance(value, list):
            whole[key] = [one for each in values for one in each]
        elif isinstance(value, dict):
            whole[key] = {
                k: sum(each.get(k, 0) for each in values) for k in sorted({k for each in values for k in each})
            }
        else:
            whole[key] = max(values) if key == "late_ms" else sum(values)
    return whole


def summary(lists: Lists) -> dict[str, Any]:
    """Milliseconds over all requests and over forwarded ones, the share forwarded, accuracy, bytes per request."""
    ms, forwarded = np.asarray(lists["ms"]), np.asarray(lists["forwarded"], bool)
    judged = [each for each in lists["right"] if each is not None]
    found: dict[str, Any] = {name: take(ms) for name, take in OVERALL.items()}
    found |= {"p50": _rank(ms, 0.5), "forwarded": float(forwarded.mean())}
    if forwarded.any():
        found |= {"forwarded_p50": _rank(ms[forwarded], 0.5), "forwarded_p99": _rank(ms[forwarded], 0.99)}
    found["accuracy"] = sum(judged) / len(judged) if judged else None
    found |= {key: lists[key] for key in ("unanswered", "degraded", "exits", "late_ms")}
    found["requests"] = len(ms)
    found["bytes_up"] = [lists["up0"] / lists["sent"], lists["up1"] / lists["sent"]]
    return found


def compare(ours: Lists, theirs: Mapping[str, Lists]) -> dict[str, dict[str, Any]]:
    """Per number of OVERALL: the best of theirs over ours (above 1: ours is quicker), and a 95 % interval.

    All have the same requests at the same times, so that requests are drawn anew together (paired bootstrap).
    """
    mine = np.asarray(ours["ms"])
    others = {name: np.asarray(lists["ms"]) for name, lists in theirs.items()}
    draws = np.random.default_rng(0).integers(0, len(mine), (_DRAWS, len(mine)))
    found = {}
    for name, take in OVERALL.items():
        best = min(others, key=lambda other: take(others[other]))
        gains = [take(others[best][draw]) / take(mine[draw]) for draw in draws]
        low, high = np.percentile(gains, [2.5, 97.5])
        found[name] = {"gain": take(others[best]) / take(mine), "low": float(low), "high": float(high), "against": best}
    return found


def regrets(candidates: Mapping[str, Lists]) -> dict[str, float]:
    """Per candidate its worst number of OVERALL, each relative to the best candidate's: 1 is best in all of them."""
    numbers = {
        name: {key: take(np.asarray(c["ms"])) for key, take in OVERALL.items()} for name, c in candidates.items()
    }
    best = {key: min(each[key] for each in numbers.values()) for key in OVERALL}
    return {name: max(each[key] / best[key] for key in OVERALL) for name, each in numbers.items()}


def least_regret(candidates: Mapping[str, Lists]) -> str:
    """The candidate with the least regret."""
    found = regrets(candidates)
    return min(found, key=lambda name: found[name])


def geometric_mean(values: Sequence[float]) -> float:
    """Of ratios, so that 2x and 0.5x make 1x."""
    return float(np.exp(np.mean(np.log(values))))
