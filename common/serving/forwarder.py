"""The way up: rows that a tier could not decide are forwarded, and none of them is lost.

Whatever upstream does (answer, answer in part, refuse, break, keep silent), every row ends with upstream's
answer or with the deepest exit computed here.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from common.errors import DeadlineExceeded, Overloaded, RequestError, Unavailable
from common.serving.chunk import Chunk
from common.serving.upstream import Upstream
from common.tier_name import TIER_NAME
from common.types import RESERVE_S, Answer, Deadline, Hop, Request, Rows

log = logging.getLogger(__name__)

_CERTAIN = 1.0 + 1e-5  # what rounding may make of a probability of 1


@lru_cache(maxsize=256)
def _may_be_called(tier: str) -> bool:
    return TIER_NAME.fullmatch(tier) is not None


Received = Callable[[Chunk, list[Answer]], None]
GiveUp = Callable[[Chunk, RequestError], None]


class Forwarder:
    """Asks upstream on behalf of one tier.

    Args:
        tier: the tier's name, for its hop in the answers.
        upstream: who answers; None on the last tier.
        timeout_s: the longest wait for it.
        operating_point: what a request gets that names none.
        classes: how many the bundle has.
        exits: how many the bundle has.
        max_rows: rows that may wait for upstream at a time.
        exits_passed: exits that lie on this tier or below it.
        received: called with upstream's answers for rows of a chunk.
        give_up: called with the rows that got none, and why.
    """

    def __init__(
        self,
        *,
        tier: str,
        upstream: Upstream | None,
        timeout_s: float,
        operating_point: str,
        classes: int,
        exits: int,
        max_rows: int,
        exits_passed: int,
        received: Received,
        give_up: GiveUp,
    ) -> None:
        self.upstream = upstream
        self._tier = tier
        self._timeout_s = timeout_s
        self._operating_point = operating_point
        self._classes = classes
        self._exits = exits
        self._max_rows = max_rows
        self._exits_passed = exits_passed
        self._received = received
        self._give_up = give_up
        self._rows = 0  # waiting for upstream
        # An id never comes twice: callers may use theirs again while a late reply is still under way.
        self._numbers = itertools.count()
        self._calls: set[Forwarded] = set()

    def submit(self, stage: int, chunk: Chunk) -> None:
        """Forward a chunk whose next stage is `stage`."""
        try:
            left = self._time_left(chunk)
        except RequestError as error:
            self._give_up(chunk, error)
            return
        assert self.upstream is not None
        call = Forwarded(self, chunk, self._request(stage, chunk, left))
        self._calls.add(call)
        self._rows += len(chunk)
        chunk.job.forwarding.add(call)
        call.timer = asyncio.get_running_loop().call_later(left, call.timed_out)
        try:
            self.upstream.forward(call)
        except Exception:
            log.exception("upstream could not be asked")
            call.ended(RequestError("Upstream could not be asked."))

    def close(self) -> None:
        """Forget what is still under way."""
        for call in list(self._calls):
            call.withdraw()

    def sound(self, answer: Answer, probabilities: bool) -> bool:
        """Whether an answer fits the bundle; upstream may be anybody's program."""
        return (
            answer.label < self._classes
            and answer.exit < self._exits
            and 0.0 <= answer.confidence <= _CERTAIN
            and _may_be_called(answer.tier)
            and len(answer.probabilities or ()) == (self._classes if probabilities else 0)
        )

    def answered(self, call: Forwarded, answers: Sequence[Answer]) -> None:
        """Pass answers on with this tier's hop in front; a second answer for a row is dropped."""
        chunk = call.chunk
        if chunk.job.over:
            return
        own = Hop(tier=self._tier, queue_ms=chunk.queue_s * 1e3, compute_ms=chunk.compute_s * 1e3)
        wanted = chunk.job.request.want_probabilities
        fresh = [a.behind(own) for a in answers if self.sound(a, wanted) and call.waiting.pop(a.row, None) is not None]
        if fresh:
            self._received(chunk, fresh)

    def ended(self, call: Forwarded, error: RequestError | None) -> None:
        """The rows without an answer get none from upstream."""
        self.forget(call)
        if call.waiting:
            left = call.chunk.take(list(call.waiting.values()))
            self._give_up(left, error or RequestError("Upstream left rows without an answer that fits the bundle."))

    def forget(self, call: Forwarded) -> None:
        """The call is over."""
        self._calls.discard(call)
        self._rows -= len(call.chunk)
        call.chunk.job.forwarding.discard(call)

    def _time_left(self, chunk: Chunk) -> float:
        """Seconds that upstream gets; raises RequestError when it need not be asked."""
        if self.upstream is None:
            raise Unavailable("No exit lies on this tier, and it has no upstream.")
        if self._rows + len(chunk) > self._max_rows:
            raise Overloaded(f"{self._rows} rows wait for upstream already.")
        left = min(chunk.job.request.deadline.left(), self._timeout_s) - RESERVE_S
        if left <= 0 or self.upstream.in_vain(left):
            raise DeadlineExceeded("Too little time is left to ask upstream.")
        return left

    def _request(self, stage: int, chunk: Chunk, left: float) -> Request:
        asked = chunk.job.request
        start, rows, thresholds = self._what_travels(stage, chunk)
        return Request(
            request_id=f"{asked.request_id}#{next(self._numbers)}",
            rows=rows,
            bundle=asked.bundle,
            operating_point=asked.operating_point or self._operating_point,
            start_stage=start,
            thresholds=thresholds,
            deadline=Deadline.after(left),
            want_probabilities=asked.want_probabilities,
            purpose=asked.purpose,
            traceparent=asked.traceparent,
        )

    def _what_travels(self, stage: int, chunk: Chunk) -> tuple[int, Rows, tuple[float, ...]]:
        """Activations that upstream goes on from, or the input that it starts from again.

        In the second case no exit that was passed here may accept there, whatever the other runtime computes.
        """
        if chunk.inputs is None:
            rows = Rows(ids=chunk.ids, tensors=chunk.tensors, state=chunk.state)
            return stage, rows, chunk.job.request.thresholds
        later = chunk.job.thresholds[self._exits_passed :]
        thresholds = (*(math.nan,) * self._exits_passed, *later)
        return 0, Rows(ids=chunk.ids, tensors=chunk.inputs), thresholds


class Forwarded:
    """One call to upstream: the chunk behind it, and which of its rows still wait."""

    __slots__ = ("_forwarder", "_over", "chunk", "request", "timer", "waiting")

    def __init__(self, forwarder: Forwarder, chunk: Chunk, request: Request) -> None:
        self._forwarder = forwarder
        self._over = False
        self.chunk = chunk
        self.request = request
        self.waiting = dict(zip(chunk.ids, range(len(chunk)), strict=True))  # row id -> its place in the chunk
        self.timer: asyncio.TimerHandle | None = None

    def answered(self, answers: Sequence[Answer]) -> None:
        """Upstream has answered some rows."""
        if not self._over:
            self._forwarder.answered(self, answers)

    def ended(self, error: RequestError | None) -> None:
        """Upstream is through with it."""
        if self._end():
            self._forwarder.ended(self, error)

    def timed_out(self) -> None:
        """Upstream did not answer in time."""
        if self._end():
            self._withdraw()
            self._forwarder.ended(self, DeadlineExceeded("Upstream did not answer in time."))

    def withdraw(self) -> None:
        """Nobody waits for the rows any more."""
        if self._end():
            self._withdraw()
            self._forwarder.forget(self)

    def _end(self) -> bool:
        if self._over:
            return False
        self._over = True
        if self.timer is not None:
            self.timer.cancel()
        return True

    def _withdraw(self) -> None:
        if self._forwarder.upstream is not None:
            self._forwarder.upstream.withdraw(self)
