"""An HTTP server inside the running event loop, for an ASGI application and its quick routes.

A connection that does not deliver a request's head or body in time is closed, heads are bounded, and so is the
number of connections. No signal handlers, no access log, no WebSockets, no HTTP/2.
"""

from __future__ import annotations

import asyncio
import logging
import time

from common.serving.asgi import AsgiApp
from common.serving.connection import Connection
from common.serving.hub import HttpLimits, Hub
from common.serving.listening import listen, stop_listening

__all__ = ["LINGER_S", "HttpLimits", "HttpServer", "check_free"]

log = logging.getLogger(__name__)

_LOOK_S = 0.002  # between two looks at connections that are about to end
LINGER_S = 0.25  # in which a request that was on its way over an idle connection when the server stops is answered
_FLUSH_S = 0.5  # for the last bytes of answers when the server stops


class HttpServer:
    """A listening server; `start` makes one."""

    def __init__(self, app: AsgiApp, limits: HttpLimits) -> None:
        self._hub = Hub(app=app, quick=getattr(app, "quick", {}), limits=limits)
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.port = 0

    @classmethod
    async def start(
        cls, app: AsgiApp, host: str, port: int, limits: HttpLimits | None = None, *, shared: bool = False
    ) -> HttpServer:
        """Listen and serve.

        Args:
            app: what answers. Where it has an attribute `quick`, path -> QuickRoute, that answers small POST
                requests to these paths.
            host: the address to listen on.
            port: 0 for any free one; `port` of the result tells which.
            limits: what a connection may do.
            shared: whether other processes listen on the same port, each for its part of the connections.

        Raises:
            OSError: when the address cannot be opened.
        """
        server = cls(app, limits or HttpLimits())
        await server._listen(host, port, shared)
        return server

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._hub.connections)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Accept no more, let running requests finish for `grace_s` seconds, then close everything."""
        if self._server is None:
            return
        hub = self._hub
        await stop_listening(self._server)
        for connection in list(hub.connections):
            connection.shutdown()
        until = time.monotonic() + grace_s
        linger = time.monotonic() + min(grace_s, LINGER_S)
        while hub.connections and time.monotonic() < linger:
            await asyncio.sleep(_LOOK_S)
        for connection in list(hub.connections):
            connection.close_idle()
        while any(connection.busy for connection in hub.connections) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)
        hub.stopping = True
        if busy := [connection for connection in hub.connections if connection.busy]:
            log.warning("requests on %d connections were still running after %g s: they end", len(busy), grace_s)
        for connection in busy:
            connection.cut_short()
        if left := list(hub.tasks):
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=1.0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._all_closed()
        for connection in list(hub.connections):
            connection.abort()
        await self._all_closed()
        await self._server.wait_closed()
        self._server = None

    async def _listen(self, host: str, port: int, shared: bool) -> None:
        self._server = await listen(lambda: Connection(self._hub), host, port, shared=shared)
        await self._server.start_serving()
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def _all_closed(self) -> None:
        """Wait until the connections that are being closed have sent what they still hold."""
        until = time.monotonic() + _FLUSH_S
        while any(connection.closing for connection in self._hub.connections) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)

    async def _sweep(self) -> None:
        """Close the connections that are too slow."""
        limits = self._hub.limits
        pause = min(1.0, limits.head_s / 4, limits.body_s / 4)
        while True:
            await asyncio.sleep(pause)
            now = time.monotonic()
            for connection in list(self._hub.connections):
                connection.sweep(now)


async def check_free(host: str, port: int) -> None:
    """Refuse an address that somebody listens on (OSError): one that is to be shared would be shared with him."""
    if port:
        server = await listen(asyncio.Protocol, host, port)
        server.close()
        await server.wait_closed()
