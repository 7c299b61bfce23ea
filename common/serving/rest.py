"""The REST door as a bare ASGI application: `POST /predict` at once, everything else by a small FastAPI app.

A tensor never passes through a model class: the body is parsed straight into numpy, the answers are dumped
straight from their dataclasses. The contract with callers stands in the OpenAPI document all the same.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from common.errors import Overloaded, RequestError
from common.serving.asgi import Headers, Receive, Scope, Send, error_body, send_json, without_body
from common.serving.callers import Callers
from common.serving.core import Core
from common.serving.exchange import RETRIED, RETRY_AFTER, Quick, Reply, Respond
from common.serving.pages import pages
from common.serving.prediction import Predictions
from common.serving.request_head import Head, read_head

log = logging.getLogger(__name__)

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
        self._limits = core.limits
        self._predictions = Predictions(core)
        self._pages = pages(core, self._predictions.bodies.types)
        self._callers = Callers()
        self._buffered = 0  # bytes of bodies that arrive or wait for their answer
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

    def _quick_predict(self, headers: Headers, query: bytes) -> Quick | None:
        """What answers requests with this head, whose bodies are there; None where they need not come."""
        try:
            head = read_head(headers)
        except RequestError as error:
            return partial(self._refuse, error)
        if head.content_length > self._limits.body_bytes:
            return None
        return partial(self._predictions.begin, head, query)

    def _refuse(self, error: RequestError, body: bytes, respond: Respond) -> None:
        respond(self._predictions.refusal(error))

    async def _predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._reply(scope, receive)
        except Gone:
            return
        headers = [(b"x-request-id", reply.request_id.encode())] if reply.request_id else []
        if reply.status in RETRIED:
            headers.append(RETRY_AFTER)
        await send_json(send, reply.status, reply.body, headers)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        """Receive the body, and answer; raises Gone."""
        predictions = self._predictions
        head = Head()
        try:
            head = read_head(scope["headers"])
            head.request_id = head.request_id or predictions.fresh_id()
            body = await self._body(receive, head.content_length)
        except RequestError as error:
            return predictions.refusal(error, head.request_id)
        try:
            return await self._answered(head, scope["query_string"], body, receive)
        finally:
            self._buffered -= len(body)

    async def _answered(self, head: Head, query: bytes, body: bytes, receive: Receive) -> Reply:
        """Answer a request whose body is there; raises Gone."""
        replied: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        prediction = self._predictions.begin(head, query, body, replied.set_result)
        if replied.done():
            return replied.result()
        caller = self._callers.enter(receive)
        try:
            return await replied
        except asyncio.CancelledError:
            prediction.withdraw()
            if caller.gone:
                raise Gone from None
            raise
        finally:
            self._callers.leave(caller)

    async def _body(self, receive: Receive, declared: int) -> bytes:
        """The whole body, never more than the limit; what is held for all callers is bounded too.

        It counts as held until the caller of this method takes it off again.
        """
        limit = self._limits.body_bytes
        if declared > limit:
            raise self._predictions.too_long()
        chunks: list[bytes] = []
        length = 0
        more = True
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                chunk: bytes = message.get("body", b"")
                more = message.get("more_body", False)
                chunks.append(chunk)
                length += len(chunk)
                self._buffered += len(chunk)
                if length > limit:
                    raise self._predictions.too_long()
                if len(chunks) > 1 and self._buffered > self._limits.buffered_bytes:
                    raise Overloaded("Too many large bodies are here at once: retry later.")
        except BaseException:
            self._buffered -= length
            raise
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
