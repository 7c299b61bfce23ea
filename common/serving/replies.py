"""The JSON of a prediction's answers, in the caller's order."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from common.types import Answer


def answers_body(request_id: str, bundle: str, answers: Sequence[Answer], classes: Sequence[str]) -> bytes:
    """The body of a 200.

    Args:
        request_id: as the caller knows it.
        bundle: name and digest.
        answers: one per row, in the caller's order.
        classes: a name per label.
    """
    return orjson.dumps(
        {"request_id": request_id, "bundle": bundle, "answers": [_answer(answer, classes) for answer in answers]}
    )


def _answer(answer: Answer, classes: Sequence[str]) -> dict[str, object]:
    shown: dict[str, object] = {
        "label": answer.label,
        "name": classes[answer.label],
        "confidence": answer.confidence,
        "exit": answer.exit,
        "tier": answer.tier,
        "degraded": answer.degraded,
        "hops": [
            {
                "tier": hop.tier,
                "queue_ms": _to_us(hop.queue_ms),
                "compute_ms": _to_us(hop.compute_ms),
                "network_ms": _to_us(hop.network_ms),
            }
            for hop in answer.hops
        ],
    }
    if answer.probabilities is not None:
        shown["probabilities"] = answer.probabilities
    return shown


def _to_us(milliseconds: float) -> float:
    """Rounded to microseconds; a tenth of what round() costs."""
    return int(milliseconds * 1e3 + 0.5) / 1e3
