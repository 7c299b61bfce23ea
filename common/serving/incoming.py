"""A connection to the gRPC door: a tier's stream is served here, every other caller is joined with gRPC's server.

gRPC's own server cannot be handed a connection, so it listens on a socket of the file system, and bytes are passed
on between the two unchanged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from common.wire.http2 import MessageStream
from common.wire.http2_frames import PREFACE, ProtocolError, is_ours

log = logging.getLogger(__name__)

HELLO_S = 10.0  # for the first bytes; a tier must have called its method by then
_LOOK_S = 0.002  # between two looks at connections that are about to end

Serve = Callable[[asyncio.Transport], MessageStream]


class Connections(set[asyncio.Transport]):
    """The open connections of a door.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._refused = self._failed = 0

    def admit(self, transport: asyncio.Transport) -> bool:
        """Take a connection in, or close it at once."""
        if len(self) < self._most:
            self.add(transport)
            return True
        transport.abort()
        self._refused += 1
        if _is_worth_a_line(self._refused):
            log.warning("%d connections are open at the gRPC door: %d refused so far", len(self), self._refused)
        return False

    def gone(self, transport: asyncio.Transport, peer: object, error: Exception | None) -> None:
        """A tier's connection has ended, perhaps for a mistake of the tier's at address `peer`."""
        self.discard(transport)
        if isinstance(error, ProtocolError):
            self._failed += 1
            if _is_worth_a_line(self._failed):
                log.warning("the connection of a tier at %s was closed: %s (%d so far)", peer, error, self._failed)

    async def close(self, within_s: float) -> None:
        """Close all as soon as they have sent what they hold, and the others when the time is over."""
        until = time.monotonic() + within_s
        while any(transport.get_write_buffer_size() for transport in self) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)
        for transport in list(self):
            transport.abort()


def _is_worth_a_line(count: int) -> bool:
    """At 1, 2, 4, ...: a flood of them is no flood of lines."""
    return count & (count - 1) == 0


class Incoming(asyncio.Protocol):
    """A connection whose caller is not known yet.

    Args:
        connections: those of the door that are open, for its bound and its end.
        serve: makes the protocol that serves a tier on a connection.
        behind: path of the socket where gRPC's server listens.
    """

    def __init__(self, connections: Connections, serve: Serve, behind: str) -> None:
        self._connections = connections
        self._serve = serve
        self._behind = behind
        self._transport: asyncio.Transport
        self._head = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._stream: MessageStream | None = None  # once the caller is known as a tier
        self._joining: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller has connected."""
        self._transport = transport
        if self._connections.admit(transport):
            self._timer = asyncio.get_running_loop().call_later(HELLO_S, self._late)

    def connection_lost(self, error: Exception | None) -> None:
        """It has gone before it said anything, or while it was being joined."""
        self._in_time()
        self._connections.discard(self._transport)
        if self._joining is not None:
            self._joining.cancel()

    def data_received(self, data: bytes) -> None:
        """Find out who calls."""
        self._head += data
        ours = is_ours(bytes(self._head))
        if ours is None:
            return
        if ours:
            self._stream = stream = self._serve(self._transport)
            self._transport.set_protocol(stream)
            stream.connection_made(self._transport)
            stream.feed(bytes(self._head[len(PREFACE) :]))
            if stream.called:  # else the timer runs on
                self._in_time()
        else:
            self._in_time()
            self._transport.pause_reading()
            self._joining = asyncio.get_running_loop().create_task(self._join())

    def _late(self) -> None:
        """Leave a caller who has not said by now what it wants."""
        if self._stream is None or not self._stream.called:
            self._transport.abort()

    def _in_time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

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
