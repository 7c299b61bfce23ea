"""An HTTP server inside the running event loop: uvicorn's protocol, with bounds that it does not have.

A connection that does not deliver a request's head or body in time is closed, heads are bounded, and so is the
number of connections. No signal handlers, no access log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from common.errors import ConfigError
from common.serving.asgi import AsgiApp, Receive, Scope, Send, error_body, send_json

log = logging.getLogger(__name__)

_FLUSH_S = 0.5  # for the last bytes of answers when the server stops


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What a connection may do."""

    head_s: float = 10.0  # from opening, or from the first byte of a request, to the end of its head
    body_s: float = 30.0  # from there to the end of its body
    idle_s: float = 75.0  # between a response and the next request
    head_bytes: int = 64 << 10
    connections: int = 1024


class HttpServer:
    """A listening server; `start` makes one."""

    def __init__(self, app: AsgiApp, limits: HttpLimits) -> None:
        self._app = app
        self._limits = limits
        self._state = ServerState()
        self._stopping = False
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.port = 0

    @classmethod
    async def start(cls, app: AsgiApp, host: str, port: int, limits: HttpLimits | None = None) -> HttpServer:
        """Listen and serve.

        Args:
            app: what answers.
            host: the address to listen on.
            port: 0 for any free one; `port` of the result tells which.
            limits: what a connection may do.

        Raises:
            ConfigError: when the address cannot be opened.
        """
        server = cls(app, limits or HttpLimits())
        await server._listen(host, port)
        return server

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._state.connections)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Accept no more, let running requests finish for `grace_s` seconds, then close everything."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_s
        while self._state.tasks and loop.time() < until:
            await asyncio.wait(self._state.tasks, timeout=until - loop.time())
        self._stopping = True
        if left := list(self._state.tasks):
            log.warning("%d requests were still running after %g s: they are cancelled", len(left), grace_s)
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1.0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._all_closed(loop.time() + _FLUSH_S)
        for connection in list(self._state.connections):
            connection.transport.abort()
        await self._all_closed(loop.time() + _FLUSH_S)
        await self._server.wait_closed()
        self._server = None

    async def _listen(self, host: str, port: int) -> None:
        config = Config(
            self._guarded,
            http=_Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=self._limits.idle_s,  # type: ignore[arg-type]
        )
        config.load()
        loop = asyncio.get_running_loop()

        def connect() -> _Protocol:
            return _Protocol(config, self._state, {}, loop, limits=self._limits)

        try:
            self._server = await loop.create_server(connect, host, port, backlog=2048)
        except OSError as error:
            raise ConfigError(f"Address {host}:{port} cannot be opened: {error.strerror or error}.") from None
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweeper = loop.create_task(self._sweep())

    async def _all_closed(self, until: float) -> None:
        """Wait until the connections that are being closed have sent what they still hold."""
        loop = asyncio.get_running_loop()
        while any(c.transport.is_closing() for c in self._state.connections) and loop.time() < until:
            await asyncio.sleep(0.002)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            with contextlib.suppress(RuntimeError):  # a response has begun already
                await send_json(send, 503, error_body("draining", "This tier is shutting down."))

    async def _sweep(self) -> None:
        """Close the connections that are too slow."""
        loop = asyncio.get_running_loop()
        pause = min(1.0, self._limits.head_s / 4, self._limits.body_s / 4)
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            for connection in list(self._state.connections):
                if isinstance(connection, _Protocol) and connection.due < now:
                    connection.too_slow()


_NEVER = float("inf")


class _Protocol(HttpToolsProtocol):
    """One connection. `due` is when it must have delivered what it is delivering."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        limits: HttpLimits | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits or HttpLimits()
        self._now: Callable[[], float] = self.loop.time
        self._head_bytes = 0
        self._in_head = True
        self.due = _NEVER

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.due = self._now() + self._limits.head_s
        if len(self.connections) > self._limits.connections:
            self._refuse(b"503 Service Unavailable", "overloaded", "Too many connections are open: retry later.")

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            if self.due == _NEVER:
                self.due = self._now() + self._limits.head_s
        super().data_received(data)
        if self._in_head and self._head_bytes > self._limits.head_bytes:
            self._refuse(
                b"431 Request Header Fields Too Large",
                "too_large",
                f"The request's head is longer than {self._limits.head_bytes} bytes.",
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self.due = self._now() + self._limits.head_s

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self.due = self._now() + self._limits.body_s
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True
        # A response that came before the end of its request's body has let the idle timer go.
        self.due = self._now() + self._limits.idle_s if self.cycle.response_complete else _NEVER

    def send_400_response(self, msg: str) -> None:
        self._refuse(b"400 Bad Request", "bad_http", "The request is not valid HTTP/1.1.")

    def too_slow(self) -> None:
        """Close a connection that took too long, with a word where no response has begun."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self._refuse(b"408 Request Timeout", "timeout", "The request did not arrive in time.")
        elif not self.transport.is_closing():
            self.transport.abort()

    def _refuse(self, status: bytes, code: str, message: str) -> None:
        if self.transport.is_closing():
            return
        body = error_body(code, message)
        self.due = _NEVER
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # nothing that the application still sends goes out
            self.cycle.message_event.set()
        self.transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, len(body), body)
        )
        self.transport.close()
