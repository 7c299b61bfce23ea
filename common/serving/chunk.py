"""Rows on their way through a tier: a chunk is the part of one request that waits for the same stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.types import Array, Tensors

if TYPE_CHECKING:
    from common.serving.job import Job


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What an exit said about some rows."""

    exit: int
    labels: list[int]
    confidences: list[float]
    probs_BC: Array | None  # only where the caller wants them

    def part(self, rows: slice, *, probabilities: bool) -> Outcome:
        """The outcome of adjacent rows, with or without their probabilities."""
        return Outcome(
            exit=self.exit,
            labels=self.labels[rows],
            confidences=self.confidences[rows],
            probs_BC=self.probs_BC[rows] if probabilities and self.probs_BC is not None else None,
        )

    def undecided(self, begin: int, end: int) -> int | None:
        """The first of some adjacent rows whose logits were not finite, so that no class is the likeliest."""
        if not math.isnan(sum(self.confidences[begin:end])):
            return None
        return next(row for row in range(begin, end) if math.isnan(self.confidences[row]))

    def take(self, rows: Sequence[int]) -> Outcome:
        """The outcome of some rows."""
        return Outcome(
            exit=self.exit,
            labels=[self.labels[i] for i in rows],
            confidences=[self.confidences[i] for i in rows],
            probs_BC=None if self.probs_BC is None else self.probs_BC[rows],
        )


@dataclass(slots=True, kw_only=True)
class Chunk:
    """Rows of one job with the tensors that are live at their next stage."""

    job: Job
    ids: tuple[int, ...]
    tensors: Tensors
    state: Tensors = field(default_factory=dict)
    inputs: Tensors | None = None  # what entered stage 0, kept only where it will be forwarded
    best: Outcome | None = None  # of the deepest exit computed on this tier
    waiting_since: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0
    key: tuple[object, ...] = ()  # chunks of equal stage and key may share a batch

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> Chunk:
        """The chunk's rows at the given positions; every tensor is compacted."""
        return Chunk(
            job=self.job,
            ids=tuple(self.ids[i] for i in rows),
            tensors={name: tensor[rows] for name, tensor in self.tensors.items()},
            state={name: tensor[rows] for name, tensor in self.state.items()},
            inputs=None if self.inputs is None else {name: tensor[rows] for name, tensor in self.inputs.items()},
            best=None if self.best is None else self.best.take(rows),
            queue_s=self.queue_s,
            compute_s=self.compute_s,
            key=self.key,
        )

    def parts(self, rows: int) -> Sequence[Chunk]:
        """The chunk in pieces of at most so many rows; itself when it is small enough."""
        if len(self.ids) <= rows:
            return (self,)
        return [self._part(slice(at, at + rows)) for at in range(0, len(self.ids), rows)]

    def _part(self, part: slice) -> Chunk:
        return Chunk(
            job=self.job,
            ids=self.ids[part],
            tensors={name: tensor[part] for name, tensor in self.tensors.items()},
            state={name: tensor[part] for name, tensor in self.state.items()},
            inputs=None if self.inputs is None else {name: tensor[part] for name, tensor in self.inputs.items()},
            key=self.key,
        )
