"""Where a door listens."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

_BACKLOG = 2048  # connections that wait to be accepted
_ACCEPTED_TO_MADE = 2  # turns of the event loop from accepting a connection to its protocol's connection_made


async def listen(
    protocol: Callable[[], asyncio.BaseProtocol], host: str, port: int, *, shared: bool = False
) -> asyncio.Server:
    """Listen on an address; `start_serving` of the result accepts.

    "::" is every interface, for IPv4 too: the event loop alone would take it for those of IPv6.

    Args:
        protocol: makes what serves a connection.
        host: a name or an IP address.
        port: 0 for any free one.
        shared: whether other processes listen on the same port, each for its part of the connections.

    Raises:
        OSError: when the address cannot be opened.
    """
    loop = asyncio.get_running_loop()
    if host == "::" and socket.has_dualstack_ipv6():
        held = socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=shared)
        return await loop.create_server(protocol, sock=held, backlog=_BACKLOG, start_serving=False)
    return await loop.create_server(
        protocol, host, port, backlog=_BACKLOG, reuse_port=shared or None, start_serving=False
    )


async def stop_listening(server: asyncio.Server) -> None:
    """Accept no more. Whoever was accepted has its protocol by the end, and nobody comes in later.

    asyncio until Python 3.12 makes the protocol a moment after it has accepted, and loses the connection, unclosed,
    where the server was closed in between; uvloop makes it after that.
    """
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
    try:
        await _turns(_ACCEPTED_TO_MADE)
    finally:
        server.close()
    await _turns(_ACCEPTED_TO_MADE)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
