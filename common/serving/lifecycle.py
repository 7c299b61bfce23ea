"""From `offramp serve` to the last answer: one event loop, one tier, SIGTERM drains."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Sequence

import uvloop

from common.serving.interpreter import settle
from common.serving.server import TierServer
from common.serving.workers import on_leash

log = logging.getLogger(__name__)

ServerFactory = Callable[[], TierServer]


def run(server_of: ServerFactory, *, worker: Sequence[str] = (), leashed: bool = False) -> None:
    """Serve one tier in the foreground until SIGTERM or SIGINT, then drain.

    Args:
        server_of: makes the tier's server inside the event loop that it will live in.
        worker: the command that starts a worker of the tier.
        leashed: whether this is one.

    Raises:
        OfframpError: when the tier cannot start.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    uvloop.run(_serve(server_of, worker, leashed))


async def _serve(server_of: ServerFactory, worker: Sequence[str], leashed: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = server_of()
    leash: asyncio.ReadTransport | None = None
    try:
        await server.start(worker)
        if leashed:
            leash = await on_leash(server.metrics.text, stop.set)
        settle()
        print(server.summary(), flush=True)
        await stop.wait()
        log.info("draining")
    finally:
        await server.stop()
        if leash is not None:
            leash.close()
