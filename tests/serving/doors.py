"""A core that answers from the tensors themselves, and small bundles for it: doors are tested without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.bundle import Bundle, write_manifest
from common.limits import Limits
from common.manifest import Manifest
from common.manifest_reader import parse_manifest
from common.serving.upstream import Deliver, Ended
from common.types import Answer, Degraded, Hop, Request, Tensors

CLASSES = 5


def document(
    tensors: dict[str, dict[str, Any]], image: dict[str, Any] | None = None, buckets: dict[str, list[int]] | None = None
) -> dict[str, Any]:
    """A manifest of one stage with the given input tensors."""
    point = {"criterion": "max-probability", "thresholds": [0.0]}
    return {
        "format_version": 1,
        "name": "small",
        "input": {"tensors": list(tensors), "image": image},
        "classes": [f"class {i}" for i in range(CLASSES)],
        "tensors": {**tensors, "logits": {"dtype": "float32", "shape": [CLASSES]}},
        "buckets": buckets or {},
        "stages": [{"file": "0.onnx", "sha256": "0" * 64, "reads": list(tensors), "writes": ["logits"], "exit": 0}],
        "cuts": [],
        "exits": [{"stage": 0, "logits": "logits"}],
        "operating_points": {"default": point, "full": point},
    }


def digits(dtype: str = "uint8", size: tuple[int, int] = (28, 28), **image: Any) -> dict[str, Any]:
    """Grey pictures, [1, H, W]."""
    spec = {"tensor": "image", "mode": "L", "size": list(size), **image}
    return document({"image": {"dtype": dtype, "shape": [1, *size]}}, spec)


def texts() -> dict[str, Any]:
    """Token ids and mask of any length up to 8, in buckets."""
    tensors = {
        "ids": {"dtype": "int64", "shape": ["tokens"], "pad": 9},
        "mask": {"dtype": "bool", "shape": ["tokens"]},
    }
    return document(tensors, buckets={"tokens": [4, 8]})


def manifest_of(doc: dict[str, Any]) -> Manifest:
    return parse_manifest(doc)


class FakeJob:
    """An answer under way, begun at once."""

    def __init__(self, answer: Coroutine[Any, Any, None], ended: Ended) -> None:
        self.over = False
        self._ended = ended
        self._task = asyncio.get_running_loop().create_task(self._run(answer))

    async def _run(self, answer: Coroutine[Any, Any, None]) -> None:
        error: Any = None
        try:
            await answer
        except Exception as raised:
            error = raised
        self.over = True
        self._ended(error)

    def withdraw(self) -> None:
        self.over = True
        self._task.cancel()


class FakeCore:
    """Answers each row with the sum of its first tensor, modulo the classes; remembers what it was asked."""

    name = "device"
    operating_point = "default"

    def __init__(self, root: Path, doc: dict[str, Any], limits: Limits | None = None) -> None:
        write_manifest(root, doc)
        self.bundle = Bundle(root)
        self.limits = limits or Limits()
        self.ready = True
        self.requests: list[Request] = []
        self.refusals: list[str] = []
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None  # answers wait for it
        self.withdrawn = asyncio.Event()

    async def answer(self, request: Request, deliver: Deliver) -> None:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.withdrawn.set()
                raise
        answers = [self._answer(request, position) for position in range(len(request.rows))]
        middle = len(answers) // 2
        if middle:
            deliver(answers[middle:][::-1])  # in pieces and out of order
            await asyncio.sleep(0)
        deliver(answers[:middle] or answers)

    def submit(self, request: Request, deliver: Deliver, ended: Ended) -> FakeJob:
        return FakeJob(self.answer(request, deliver), ended)

    def refused(self, code: str) -> None:
        self.refusals.append(code)

    def _answer(self, request: Request, position: int) -> Answer:
        label = label_of(request.rows.tensors, position)
        return Answer(
            row=request.rows.ids[position],
            label=label,
            confidence=0.75,
            exit=0,
            tier="edge",
            degraded=None if request.forward else Degraded.UPSTREAM_UNAVAILABLE,
            hops=(Hop(tier="device", queue_ms=0.12345, compute_ms=1.0), Hop(tier="edge", network_ms=2.0)),
            probabilities=(0.75, 0.25, 0.0, 0.0, 0.0) if request.want_probabilities else None,
        )


def label_of(tensors: Tensors, position: int) -> int:
    """What FakeCore answers."""
    first = next(iter(tensors.values()))
    return int(np.abs(first[position].astype(np.float64)).sum() % CLASSES)


def labels(reply: dict[str, Any]) -> Sequence[int]:
    return [answer["label"] for answer in reply["answers"]]
