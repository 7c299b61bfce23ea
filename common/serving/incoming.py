"""A connection to the gRPC door: a tier's stream is served here, every other caller is joined with gRPC's server.

gRPC's own server cannot be handed a connection, so it listens on a socket of the file system, and bytes are passed
on between the two unchanged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from common.wire.http2 import PREFACE, MessageStream, is_ours

log = logging.getLogger(__name__)

HELLO_S = 10.0  # for the first bytes

Serve = Callable[[asyncio.Transport], MessageStream]


class Incoming(asyncio.Protocol):
    """A connection whose caller is not known yet.

    Args:
        connections: those of the door that are open, for its end.
        serve: makes the protocol that serves a tier on a connection.
        behind: path of the socket where gRPC's server listens.
    """

    def __init__(self, connections: set[asyncio.Transport], serve: Serve, behind: str) -> None:
        self._connections = connections
        self._serve = serve
        self._behind = behind
        self._transport: asyncio.Transport
        self._head = bytearray()
        self._timer: asyncio.TimerHandle
        self._joining: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller has connected."""
        self._transport = transport
        self._connections.add(transport)
        self._timer = asyncio.get_running_loop().call_later(HELLO_S, transport.abort)

    def connection_lost(self, error: Exception | None) -> None:
        """It has gone before it said anything, or while it was being joined."""
        self._timer.cancel()
        self._connections.discard(self._transport)
        if self._joining is not None:
            self._joining.cancel()

    def data_received(self, data: bytes) -> None:
        """Find out who calls."""
        self._head += data
        ours = is_ours(bytes(self._head))
        if ours is None:
            return
        self._timer.cancel()
        if ours:
            stream = self._serve(self._transport)
            self._transport.set_protocol(stream)
            stream.connection_made(self._transport)
            stream.feed(bytes(self._head[len(PREFACE) :]))
        else:
            self._transport.pause_reading()
            self._joining = asyncio.get_running_loop().create_task(self._join())

    async def _join(self) -> None:
        """Connect to gRPC's server and pass everything on, both ways."""
        transport = self._transport
        try:
            loop = asyncio.get_running_loop()
            behind, _ = await loop.create_unix_connection(lambda: Pipe(transport), self._behind)
        except OSError as error:
            log.warning("a caller cannot be passed on to gRPC: %s", error)
            transport.abort()
            return
        behind.write(bytes(self._head))
        transport.set_protocol(Pipe(behind, lambda: self._connections.discard(transport)))
        transport.resume_reading()


class Pipe(asyncio.Protocol):
    """One end of a joined pair: what it reads is written to the other.

    Args:
        other: the transport of the other end.
        gone: called when this end has gone.
    """

    def __init__(self, other: asyncio.Transport, gone: Callable[[], None] = lambda: None) -> None:
        self._other = other
        self._gone = gone

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self._other.write(data)

    def pause_writing(self) -> None:
        """This end does not read what it is sent: the other must wait."""
        if not self._other.is_closing():
            self._other.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        if not self._other.is_closing():
            self._other.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """This end has gone, and so shall the other once it has what was sent."""
        self._gone()
        self._other.close()
