"""A small HTTP/1.1 client for load: keep-alive connections, POST only, one request at a time on each.

General clients cost more per request than a small network takes to answer, and would measure themselves.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools

from common.errors import ConfigError

_MAX_REPLY_BYTES = 64 << 20


class ClientError(Exception):
    """A request got no reply; `kind` is short and the same for all errors of its sort."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply as it came."""

    status: int
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection; httptools takes the replies apart and calls the on_* methods."""

    def __init__(self) -> None:
        self.usable = True
        self.silent = True  # nothing of the current reply has come
        self._transport: Any = None
        self._parser: Any = None
        self._reply: asyncio.Future[Reply] | None = None
        self._parts: list[bytes] = []
        self._size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("connection lost")

    def data_received(self, data: bytes) -> None:
        self.silent = False
        if self._parser is None:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("not HTTP")

    async def ask(self, request: bytes) -> Reply:
        """Send a whole request and wait for its reply."""
        self._parser = httptools.HttpResponseParser(self)
        self._reply = asyncio.get_running_loop().create_future()
        self._parts, self._size, self.silent = [], 0, True
        self._transport.write(request)
        try:
            return await self._reply
        finally:
            if not self._reply.done() or self._reply.cancelled():
                self.close()

    def close(self) -> None:
        """Close it for good."""
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _MAX_REPLY_BYTES:
            self._fail("reply too large")
        self._parts.append(data)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(Reply(self._parser.get_status_code(), b"".join(self._parts)))
        self._parser = None

    def _fail(self, kind: str) -> None:
        self.close()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ClientError(kind))


class HttpClient:
    """Posts to one path of one server over as many connections as there are requests in flight."""

    def __init__(self, url: str, path: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if not url.isascii() or parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise ConfigError(f"--url is {url!r}. It must be such as http://127.0.0.1:8000.")
        self._host = parts.hostname
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = port or (443 if self._ssl else 80)
        self._head = f"POST {parts.path.rstrip('/')}{path} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
        self._idle: list[_Connection] = []

    def request(self, content_type: str, body: bytes) -> bytes:
        """A whole request, to be made once and sent often."""
        head = f"{self._head}Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode("ascii") + body

    async def open(self, count: int) -> None:
        """Open connections ahead of the requests.

        Raises:
            ClientError: when one cannot be opened.
        """
        self._idle += await asyncio.gather(*(self._connect() for _ in range(count)))

    async def send(self, request: bytes) -> Reply:
        """Send a request on an idle connection, or on a new one.

        Raises:
            ClientError: when no reply came.
        """
        while self._idle:
            connection = self._idle.pop()  # the latest used: least likely to have been closed
            if not connection.usable:
                continue
            try:
                return await self._ask(connection, request)
            except ClientError:
                if not connection.silent:
                    raise
                # The server closed it just as it was taken; nothing of the request was answered.
        return await self._ask(await self._connect(), request)

    def close(self) -> None:
        """Close every idle connection."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _ask(self, connection: _Connection, request: bytes) -> Reply:
        reply = await connection.ask(request)
        if connection.usable:
            self._idle.append(connection)
        return reply

    async def _connect(self) -> _Connection:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection, self._host, self._port, ssl=self._ssl
            )
        except ConnectionRefusedError:
            raise ClientError("connection refused") from None
        except OSError:
            raise ClientError("no connection") from None
        return connection
