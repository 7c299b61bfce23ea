"""One prediction over HTTP, from its body to its reply.

Nothing here waits: a body that takes long to read goes to a thread, the rows to the tier, and the reply is given
when the last answer is there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from common.errors import RequestError, TooLarge
from common.serving.asgi import error_body
from common.serving.bodies import Bodies, Parsed, check_point
from common.serving.core import Core, Withdrawable
from common.serving.exchange import Reply, Respond
from common.serving.replies import answers_body
from common.serving.request_head import Head, fresh_ids
from common.serving.status import http_status
from common.types import NEVER, Answer, Deadline, Request, Rows

log = logging.getLogger(__name__)

_ONE = (0,)
_READERS = 4  # threads that read bodies; the other bodies wait here, where a caller who leaves takes his along
_INTERNAL = error_body("internal", "The request failed on this tier. The tier goes on.")


class Predictions:
    """What all predictions of one door share.

    Args:
        core: the tier.

    Raises:
        BundleError: when the bundle's image description does not make its input tensor.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self.manifest = core.bundle.manifest
        self.digest, self.name = core.bundle.digest, core.bundle.name
        self.body_bytes = core.limits.body_bytes
        self.bodies = Bodies(core.bundle.manifest, core.limits)
        self.fresh_id = fresh_ids()
        self.tasks: set[asyncio.Task[Any]] = set()  # bodies that are read in a thread
        self.readers = asyncio.Semaphore(_READERS)

    def begin(self, head: Head, query: bytes, body: bytes, respond: Respond) -> Prediction:
        """Answer a request whose body is there."""
        prediction = Prediction(self, head, respond)
        try:
            prediction.begin(query, body)
        except Exception as error:
            prediction.fail(error)
        return prediction

    def refusal(self, error: RequestError, request_id: str = "") -> Reply:
        """The reply to a request that is refused, counted."""
        self.core.refused(error.code)
        return Reply(http_status(error), error_body(error.code, str(error)), request_id)

    def too_long(self) -> TooLarge:
        """The body has more bytes than are accepted."""
        return TooLarge(
            f"The body is longer than {self.body_bytes} bytes, the most that is accepted.", "body_too_large"
        )


class Prediction:
    """A request under way; `Predictions.begin` makes one."""

    __slots__ = ("_answers", "_head", "_respond", "_rows", "_shared", "_work", "over", "request_id")

    def __init__(self, shared: Predictions, head: Head, respond: Respond) -> None:
        self.request_id = head.request_id or shared.fresh_id()
        self.over = False
        self._shared = shared
        self._head = head
        self._respond = respond
        self._rows = 0
        self._answers: list[Answer] = []
        self._work: Withdrawable | asyncio.Task[None] | None = None

    def begin(self, query: bytes, body: bytes) -> None:
        """Read the body and ask the core; raises whatever is wrong with them."""
        shared = self._shared
        if len(body) > shared.body_bytes:
            raise shared.too_long()
        started = time.monotonic()
        parsed = shared.bodies.read_quickly(body, self._head.content_type, query)
        if parsed is not None:
            self._ask(parsed, started)
            return
        self._work = asyncio.get_running_loop().create_task(self._read_elsewhere(body, query, started))
        shared.tasks.add(self._work)
        self._work.add_done_callback(shared.tasks.discard)

    def fail(self, error: Exception) -> None:
        """Reply that there is no answer, and why."""
        shared = self._shared
        if isinstance(error, RequestError):
            self._reply(shared.refusal(error, self.request_id))
        else:
            log.error("request %s failed", self.request_id, exc_info=error)
            shared.core.refused("internal")
            self._reply(Reply(500, _INTERNAL, self.request_id))

    def withdraw(self) -> None:
        """Nobody waits for the reply any more."""
        self.over = True
        work, self._work = self._work, None
        if isinstance(work, asyncio.Task):
            work.cancel()
        elif work is not None:
            work.withdraw()

    async def _read_elsewhere(self, body: bytes, query: bytes, started: float) -> None:
        shared, kind = self._shared, self._head.content_type

        def read_through(done: asyncio.Future[Parsed]) -> None:
            shared.readers.release()
            if not done.cancelled():
                done.exception()  # perhaps nobody waits for it any more

        try:
            await shared.readers.acquire()
            reading = asyncio.get_running_loop().run_in_executor(None, shared.bodies.read, body, kind, query)
            reading.add_done_callback(read_through)
            self._ask(await asyncio.shield(reading), started)
        except Exception as error:
            self.fail(error)

    def _ask(self, parsed: Parsed, started: float) -> None:
        shared, options = self._shared, parsed.options
        core = shared.core
        point = options.operating_point
        if point is None:
            point = core.operating_point
        else:
            check_point(point, shared.manifest)
        rows = self._rows = parsed.rows
        request = Request(
            request_id=self.request_id,
            rows=Rows(ids=_ONE if rows == 1 else tuple(range(rows)), tensors=parsed.tensors),
            bundle=shared.digest,
            operating_point=point,
            deadline=NEVER if options.timeout_ms is None else Deadline(started + options.timeout_ms / 1e3),
            forward=options.forward,
            want_probabilities=options.probabilities,
            traceparent=self._head.traceparent,
        )
        work = core.submit(request, self._deliver, self._ended)
        if not self.over:
            self._work = work

    def _deliver(self, answers: Sequence[Answer]) -> None:
        self._answers += answers

    def _ended(self, error: RequestError | None) -> None:
        if self.over:
            return
        if error is not None:
            self.fail(error)
            return
        try:
            shown = self._shown()
        except Exception as defect:
            self.fail(defect)
        else:
            self._reply(Reply(200, shown, self.request_id))

    def _shown(self) -> bytes:
        answers, rows = self._answers, self._rows
        if len(answers) != rows:
            raise RuntimeError(f"{rows - len(answers)} of {rows} rows have no answer")
        if rows > 1:
            answers.sort(key=lambda answer: answer.row)
        shared = self._shared
        return answers_body(self.request_id, shared.name, answers, shared.manifest.classes)

    def _reply(self, reply: Reply) -> None:
        if not self.over:
            self.over = True
            self._work = None
            self._respond(reply)
