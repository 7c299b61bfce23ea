"""Rows on their way through a tier: a chunk is the part of one request that waits for the same stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.types import Array, Tensors

if TYPE_CHECKING:
    from common.serving.job import Job


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What an exit said about some rows."""

    exit: int
    labels_B: Array
    confidences_B: Array
    probs_BC: Array | None  # only where the caller wants them

    def take(self, rows: Array | slice, *, probabilities: bool = True) -> Outcome:
        """The outcome of a part of the rows, with or without their probabilities."""
        return Outcome(
            exit=self.exit,
            labels_B=self.labels_B[rows],
            confidences_B=self.confidences_B[rows],
            probs_BC=self.probs_BC[rows] if probabilities and self.probs_BC is not None else None,
        )


@dataclass(slots=True, kw_only=True)
class Chunk:
    """Rows of one job with the tensors that are live at their next stage."""

    job: Job
    ids: tuple[int, ...]
    tensors: Tensors
    state: Tensors = field(default_factory=dict)
    best: Outcome | None = None  # of the deepest exit computed on this tier
    waiting_since: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0
    key: tuple[object, ...] = ()  # chunks of equal stage and key may share a batch

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Array) -> Chunk:
        """The chunk's rows at the given positions; every tensor is compacted."""
        return Chunk(
            job=self.job,
            ids=tuple(self.ids[i] for i in rows),
            tensors={name: tensor[rows] for name, tensor in self.tensors.items()},
            state={name: tensor[rows] for name, tensor in self.state.items()},
            best=None if self.best is None else self.best.take(rows),
            queue_s=self.queue_s,
            compute_s=self.compute_s,
            key=self.key,
        )

    def parts(self, rows: int) -> Iterator[Chunk]:
        """The chunk in pieces of at most so many rows; itself when it is small enough."""
        if len(self) <= rows:
            yield self
            return
        for at in range(0, len(self), rows):
            part = slice(at, at + rows)
            yield Chunk(
                job=self.job,
                ids=self.ids[part],
                tensors={name: tensor[part] for name, tensor in self.tensors.items()},
                state={name: tensor[part] for name, tensor in self.state.items()},
                key=self.key,
            )
