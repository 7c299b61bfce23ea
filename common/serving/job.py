"""One request inside a tier, from its arrival to its last row's answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from common.errors import RequestError
from common.rule import Rule
from common.serving.chunk import Chunk, Outcome
from common.serving.upstream import Deliver, Ended
from common.types import Answer, Degraded, Hop, Request

if TYPE_CHECKING:
    from common.serving.forwarder import Forwarded


class Job:
    """Keeps the count of rows that still need an answer, and turns outcomes into answers.

    Args:
        request: what was asked.
        tier: the name that local answers carry.
        rule: what accepts an exit's answer.
        thresholds: one per exit.
        deliver: called with answers as they come.
        ended: called once when nothing more will come, with the error that left rows without an answer.
        over: called once when the job is over, withdrawn or not.
    """

    __slots__ = (
        "_ended",
        "_over",
        "deliver",
        "error",
        "forwarding",
        "over",
        "received",
        "remaining",
        "request",
        "rule",
        "thresholds",
        "tier",
    )

    def __init__(
        self,
        request: Request,
        *,
        tier: str,
        rule: Rule,
        thresholds: Sequence[float],
        deliver: Deliver,
        ended: Ended,
        over: Callable[[Job], None],
    ) -> None:
        self.request = request
        self.tier = tier
        self.rule = rule
        self.thresholds = thresholds
        self.deliver = deliver
        self.received = time.monotonic()
        self.remaining = len(request.rows.ids)
        self.error: RequestError | None = None
        self.forwarding: set[Forwarded] = set()
        self.over = False  # nobody waits for answers any more; chunks still on their way are dropped where met
        self._ended = ended
        self._over = over

    def answer(self, chunk: Chunk, outcome: Outcome, at: int = 0, degraded: Degraded | None = None) -> None:
        """Answer all rows of a chunk from a local exit.

        Args:
            chunk: the rows.
            outcome: what the exit said about these and perhaps other rows.
            at: where the chunk's rows begin in it.
            degraded: why a later exit was not asked.
        """
        hops = (Hop(tier=self.tier, queue_ms=chunk.queue_s * 1e3, compute_ms=chunk.compute_s * 1e3),)
        labels, confidences = outcome.labels, outcome.confidences
        probabilities: list[tuple[float, ...]] | None = None
        if outcome.probs_BC is not None and self.request.want_probabilities:
            probabilities = list(map(tuple, outcome.probs_BC[at : at + len(chunk.ids)].tolist()))
        self.deliver_some(
            [
                Answer(
                    row=row,
                    label=labels[place],
                    confidence=confidences[place],
                    exit=outcome.exit,
                    tier=self.tier,
                    degraded=degraded,
                    hops=hops,
                    probabilities=None if probabilities is None else probabilities[place - at],
                )
                for place, row in enumerate(chunk.ids, at)
            ]
        )

    def deliver_some(self, answers: Sequence[Answer]) -> None:
        """Pass answers on and finish when they were the last."""
        self.deliver(answers)
        self.remaining -= len(answers)
        if self.remaining == 0:
            self.end()

    def fail(self, rows: int, error: RequestError) -> None:
        """Rows that get no answer here; the request ends with the first error once all rows are settled."""
        self._keep(error)
        self.settle(rows)

    def abort(self, error: RequestError) -> None:
        """End the request at once; rows that are still on their way are dropped."""
        self._keep(error)
        self.end()

    def _keep(self, error: RequestError) -> None:
        """Without the frames that raised it: they know the job, which would stay until a collection."""
        self.error = self.error or error.with_traceback(None)

    def settle(self, rows: int) -> None:
        """Count rows as done."""
        self.remaining -= rows
        if self.remaining == 0:
            self.end()

    def end(self) -> None:
        """Nothing more will come."""
        if not self.over:
            self.withdraw()
            self._ended(self.error)

    def withdraw(self) -> None:
        """Nobody waits any more; upstream is told, and rows on their way are dropped where they are met."""
        if self.over:
            return
        self.over = True
        if self.forwarding:
            for call in list(self.forwarding):
                call.withdraw()
        self._over(self)
