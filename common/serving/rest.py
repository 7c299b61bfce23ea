"""The REST door as a bare ASGI application: `POST /predict` at once, everything else by a small FastAPI app.

A tensor never passes through a model class: the body is parsed straight into numpy, the answers are dumped
straight from their dataclasses. The contract with callers stands in the OpenAPI document all the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from common.errors import Overloaded, RequestError, TooLarge
from common.serving.asgi import Headers, Receive, Scope, Send, error_body, send_json, without_body
from common.serving.bodies import Bodies, Parsed, check_point
from common.serving.callers import Callers
from common.serving.core import Core
from common.serving.exchange import Reply
from common.serving.pages import pages
from common.serving.replies import answers_body
from common.serving.request_head import Head, fresh_ids, read_head
from common.serving.status import http_status
from common.serving.upstream import Deliver
from common.types import NEVER, Answer, Deadline, Request, Rows

log = logging.getLogger(__name__)

_INTERNAL = error_body("internal", "The request failed on this tier. The tier goes on.")
_ONLY_POST = error_body("method_not_allowed", "/predict takes POST only.")


class Gone(Exception):
    """The caller has left; nobody reads an answer."""


class RestDoor:
    """An ASGI application in front of a tier.

    Args:
        core: the tier.

    Raises:
        BundleError: when the bundle's image description does not make its input tensor.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._bundle = core.bundle
        self._bodies = Bodies(core.bundle.manifest, core.limits)
        self._pages = pages(core, self._bodies.types)
        self._fresh_id = fresh_ids()
        self._callers = Callers()
        self._buffered = 0  # bytes of bodies that are still arriving
        self.quick = {b"/predict": self._quick_predict}  # for a server that can do without ASGI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        if scope["path"] != "/predict":
            await self._page(scope, receive, send)
        elif scope["method"] != "POST":
            await send_json(send, 405, _ONLY_POST, [(b"allow", b"POST")])
        else:
            await self._predict(scope, receive, send)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET"}, without_body(send)
        try:
            await self._pages(scope, receive, send)
        except Exception:  # a response has been sent by then
            log.exception("%s %s failed", scope["method"], scope["path"])

    async def _predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._reply(scope["headers"], scope["query_string"], None, receive)
        except Gone:
            return
        headers = [(b"x-request-id", reply.request_id.encode())] if reply.request_id else []
        await send_json(send, reply.status, reply.body, headers)

    async def _quick_predict(self, headers: Headers, query: bytes, body: bytes) -> Reply:
        return await self._reply(headers, query, body, None)

    async def _reply(self, headers: Headers, query: bytes, body: bytes | None, receive: Receive | None) -> Reply:
        """Answer a prediction; its body is there, or else it is received. Raises Gone."""
        request_id = ""
        try:
            head = read_head(headers)
            request_id = head.request_id or self._fresh_id()
            if body is None:
                assert receive is not None
                body = await self._body(receive, head.content_length)
            elif len(body) > self._core.limits.body_bytes:
                raise _too_long(self._core.limits.body_bytes)
            started = time.monotonic()
            parsed = await self._parsed(body, head.content_type, query)
            request = self._request(request_id, head, parsed, started)
            answers = await self._answers(request, receive)
            shown = answers_body(request_id, self._bundle.name, answers, self._bundle.manifest.classes)
            return Reply(200, shown, request_id)
        except Gone:
            raise
        except RequestError as error:
            self._core.refused(error.code)
            return Reply(http_status(error), error_body(error.code, str(error)), request_id)
        except Exception:
            log.exception("request %s failed", request_id)
            self._core.refused("internal")
            return Reply(500, _INTERNAL, request_id)

    async def _body(self, receive: Receive, declared: int) -> bytes:
        """The whole body, never more than the limit; what is buffered for all callers is bounded too."""
        limit = self._core.limits.body_bytes
        if declared > limit:
            raise _too_long(limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        chunk: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if len(chunk) > limit:
                raise _too_long(limit)
            return chunk
        chunks = [chunk]
        length = len(chunk)
        self._buffered += length
        try:
            while message.get("more_body", False):
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                chunk = message.get("body", b"")
                chunks.append(chunk)
                length += len(chunk)
                self._buffered += len(chunk)
                if length > limit:
                    raise _too_long(limit)
                if self._buffered > self._core.limits.buffered_bytes:
                    raise Overloaded("Too many large bodies are arriving at once: retry later.")
            return b"".join(chunks)
        finally:
            self._buffered -= length

    async def _parsed(self, body: bytes, content_type: str, query: bytes) -> Parsed:
        bodies = self._bodies
        if bodies.is_quick(body, bodies.media_type(content_type)):
            return bodies.read(body, content_type, query)
        return await asyncio.to_thread(bodies.read, body, content_type, query)

    def _request(self, request_id: str, head: Head, parsed: Parsed, started: float) -> Request:
        options = parsed.options
        point = options.operating_point
        if point is None:
            point = self._core.operating_point
        else:
            check_point(point, self._bundle.manifest)
        return Request(
            request_id=request_id,
            rows=Rows(ids=tuple(range(parsed.rows)), tensors=parsed.tensors),
            bundle=self._bundle.digest,
            operating_point=point,
            deadline=NEVER if options.timeout_ms is None else Deadline(started + options.timeout_ms / 1e3),
            forward=options.forward,
            want_probabilities=options.probabilities,
            traceparent=head.traceparent,
        )

    async def _answers(self, request: Request, receive: Receive | None) -> list[Answer]:
        """One answer per row, in the caller's order."""
        placed: list[Answer | None] = [None] * len(request.rows)

        def deliver(answers: Sequence[Answer]) -> None:
            for answer in answers:
                placed[answer.row] = answer

        if receive is None:  # whoever called withdraws the request when its caller leaves
            await self._core.answer(request, deliver)
        else:
            await self._watched(request, deliver, receive)
        answers = [answer for answer in placed if answer is not None]
        if len(answers) != len(placed):
            raise RuntimeError(f"{len(placed) - len(answers)} of {len(placed)} rows have no answer")
        return answers

    async def _watched(self, request: Request, deliver: Deliver, receive: Receive) -> None:
        """Ask the core, and withdraw the request when its caller leaves."""
        caller = self._callers.enter(receive)
        try:
            await self._core.answer(request, deliver)
        except asyncio.CancelledError:
            if caller.gone:
                raise Gone from None
            raise
        finally:
            self._callers.leave(caller)


def _too_long(limit: int) -> TooLarge:
    return TooLarge(f"The body is longer than {limit} bytes, the most that is accepted.", "body_too_large")
