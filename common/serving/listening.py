"""Where a door listens."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

_BACKLOG = 2048  # connections that wait to be accepted


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
