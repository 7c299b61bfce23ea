"""One request and its response on a connection.

Most are served by an ASGI application. A quick exchange is a whole small request that is answered with one JSON body,
at once or later: no scope, no messages, no coroutine and no task.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

from common.serving.asgi import Headers, Message, Scope, error_body

if TYPE_CHECKING:
    from common.serving.connection import Connection

log = logging.getLogger(__name__)

HIGH_WATER = 64 << 10  # bytes of a body that nobody has asked for yet

_PHRASE = {status.value: status.phrase.encode() for status in http.HTTPStatus}
_CLOSE = b"connection: close\r\n"
RETRIED = (429, 503)  # replies that say when to try again
RETRY_AFTER = (b"retry-after", b"1")  # how they do
_RETRY = b"%b: %b\r\n" % RETRY_AFTER


@lru_cache(maxsize=256)
def _head(status: int, close: bool) -> bytes:
    """A JSON response without the length of its body, its request id and its body."""
    line = b"HTTP/1.1 %d %b\r\n" % (status, _PHRASE.get(status, b""))
    fields = _RETRY * (status in RETRIED) + _CLOSE * close
    return line + b"content-type: application/json\r\ncontent-length: %d\r\n%b" + fields + b"\r\n%b"


class Reply(NamedTuple):
    """A whole JSON response."""

    status: int
    body: bytes
    request_id: str = ""

    def to_wire(self, *, close: bool) -> bytes:
        """Head and body."""
        named = b"x-request-id: %b\r\n" % self.request_id.encode() if self.request_id else b""
        return _head(self.status, close) % (len(self.body), named, self.body)


class Work(Protocol):
    """A request that is being answered."""

    def withdraw(self) -> None:
        """Nobody waits for the answer any more; none may be given."""
        ...


Respond = Callable[[Reply], None]  # called once, with the answer
Quick = Callable[[bytes, Respond], Work | None]  # body -> the answer, before it returns or later
# headers, query -> what answers all requests with such a head; None: the application does, before the body is here
QuickRoute = Callable[[Headers, bytes], Quick | None]

_INTERNAL = Reply(500, error_body("internal", "The request failed on this tier. The tier goes on."))
_DRAINING = Reply(503, error_body("draining", "This tier is shutting down."))


class QuickExchange:
    """A small request for a quick route."""

    __slots__ = ("_chunks", "_length", "_line", "_over", "_whole", "_work", "headers", "keep_alive", "quick")

    def __init__(
        self, line: Connection, quick: Quick, headers: Headers, *, keep_alive: bool, body: bytes | None = None
    ) -> None:
        self.keep_alive = keep_alive
        self.quick = quick
        self.headers = headers
        self._line = line
        self._whole = body
        self._chunks: list[bytes] = []
        self._length = 0
        self._work: Work | None = None
        self._over = False  # answered, or nobody waits any more

    @property
    def body(self) -> bytes:
        """What has arrived of it."""
        if self._whole is None:
            self._whole = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        return self._whole

    def take(self, chunk: bytes) -> bool:
        """Take a piece of the body; false when it is no longer a small one."""
        self._chunks.append(chunk)
        self._length += len(chunk)
        return self._length <= HIGH_WATER

    def start(self) -> None:
        """Answer; the body is complete."""
        try:
            work = self.quick(self.body, self._reply)
        except Exception as error:
            self._reply(_failed(error))
        else:
            if not self._over:
                self._work = work

    def leave(self) -> None:
        """The caller has gone: the request is withdrawn."""
        self._over = True
        if self._work is not None:
            self._work.withdraw()
            self._work = None

    def cut_short(self) -> None:
        """The server stops before the answer is there."""
        if not self._over:
            work, self._work = self._work, None
            self._reply(_DRAINING)
            if work is not None:
                work.withdraw()

    def _reply(self, reply: Reply) -> None:
        if self._over:
            return
        self._over = True
        self._work = None
        line = self._line
        self.keep_alive = self.keep_alive and not line.is_last(self)
        line.write(reply.to_wire(close=not self.keep_alive))
        line.finished(self)


class AsgiExchange:
    """A request for the ASGI application."""

    def __init__(self, line: Connection, scope: Scope, *, keep_alive: bool, expects: bool) -> None:
        self.keep_alive = keep_alive
        self.started = False  # the head of the response is out
        self.over = False  # all of it is
        self._line = line
        self._scope = scope
        self._expects = expects  # the caller wants to hear that it may send the body
        self._body = bytearray()
        self._complete = False
        self._gone = False
        self._news = asyncio.Event()  # of the body, or that there will be none
        self._told_all = False  # the application has had the whole body
        self._status = 0
        self._headers: Headers = []
        self._left: int | None = None  # bytes that the head promises and are not written yet
        self._chunked = False
        self._mute = scope["method"] == "HEAD"

    @property
    def full(self) -> bool:
        """Whether more of the body had better wait."""
        return len(self._body) > HIGH_WATER and not self.over

    def take(self, chunk: bytes) -> bool:
        """Take a piece of the body."""
        if not self.over:
            self._body += chunk
            self._news.set()
        return True

    def complete(self) -> None:
        """The body is there."""
        self._complete = True
        self._news.set()

    def start(self) -> None:
        """Run the application."""
        self._line.hub.run(self._run())

    def leave(self) -> None:
        """The caller has gone: the application hears of it, and nothing that it sends goes out."""
        self._gone = True
        self._news.set()

    async def _run(self) -> None:
        failure = _INTERNAL
        try:
            await self._line.hub.app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self._line.hub.stopping:
                self._line.abort()
                raise
            failure = _DRAINING
        except Exception as error:
            _failed(error)
        if self.over or self._gone:
            return
        if self.started:
            self._line.abort()
            return
        self.keep_alive = False
        self._finish(failure.to_wire(close=True))

    async def receive(self) -> Message:
        """The next piece of the body, or that the caller has gone."""
        if self._expects and not self.started:
            self._expects = False
            self._line.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._told_all:
            self._news.clear()
        while not (self._gone or self.over):
            await self._news.wait()
            self._news.clear()
            if not self._told_all and (self._body or self._complete):
                break
        if self._gone or self.over:
            self._news.set()
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        self._told_all = self._complete
        self._line.pace()
        return {"type": "http.request", "body": body, "more_body": not self._complete}

    async def send(self, message: Message) -> None:
        """Send the next part of the response; the head goes out with the first piece of the body."""
        await self._line.writable()
        if self._gone:
            return
        if message["type"] == "http.response.start":
            if self._status:
                raise RuntimeError("A response has been started already.")
            self._status = message["status"]
            self._headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            return
        if not self._status or self.over:
            raise RuntimeError("There is no response that this could belong to.")
        body, more = message.get("body", b""), message.get("more_body", False)
        parts = [] if self.started else [self._head(len(body), more)]
        if not self._mute:
            parts += self._framed(body, more)
        self.started = True
        if more:
            self._line.write(b"".join(parts))
        else:
            self._finish(b"".join(parts))

    def _finish(self, data: bytes) -> None:
        self._line.write(data)
        self.over = True
        self._news.set()
        self._line.finished(self)

    def _head(self, length: int, more: bool) -> bytes:
        """The head of the response, before a first piece of so many bytes."""
        lines = [b"HTTP/1.1 %d %b\r\n" % (self._status, _PHRASE.get(self._status, b""))]
        self._mute = self._mute or self._status in (204, 304)
        self.keep_alive = self.keep_alive and not self._line.is_last(self)
        for name, value in self._headers:
            if b"\r" in value or b"\n" in value:
                raise RuntimeError(f"The header {name!r} has more than one line.")
            if name == b"content-length":
                self._left = int(value)
            elif name == b"connection":
                self.keep_alive = self.keep_alive and value.lower() != b"close"
                continue
            elif name == b"transfer-encoding":
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        if self._left is None and not self._mute:
            if not more:
                self._left = length
                lines.append(b"content-length: %d\r\n" % length)
            elif self._scope["http_version"] == "1.1":
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # the end of the connection is the end of the body
        lines.append(b"\r\n" if self.keep_alive else _CLOSE + b"\r\n")
        return b"".join(lines)

    def _framed(self, body: bytes, more: bool) -> list[bytes]:
        if self._chunked:
            framed = [b"%x\r\n" % len(body), body, b"\r\n"] if body else []
            return framed if more else [*framed, b"0\r\n\r\n"]
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("The response does not have the length that its head promises.")
        return [body]


Exchange = QuickExchange | AsgiExchange


def _failed(error: Exception) -> Reply:
    log.error("a request failed", exc_info=error)
    return _INTERNAL
