"""All addresses of one upstream: names are resolved again and again, one link each, fewest rows in flight first."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from common.address import Address
from common.errors import Unavailable
from common.serving.upstream import Deliver
from common.types import Answer, Request, Rows

log = logging.getLogger(__name__)

LOOK_S = 0.25
RESOLVE_S = 10.0


class Link(Protocol):
    """A connection to one address."""

    address: str
    up: bool
    rows_in_flight: int

    async def forward(self, request: Request, deliver: Deliver) -> None:
        """As `Upstream.forward`; raises Unavailable at once while the address is down."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class Pool:
    """An `Upstream` over any number of addresses.

    Args:
        addresses: host and port of each; a host name stands for all its addresses.
        connect: makes a link to "ip:port".
    """

    def __init__(self, addresses: Sequence[Address], connect: Callable[[str], Link]) -> None:
        self._addresses = addresses
        self._connect = connect
        self._found: dict[int, set[str]] = {}  # per address: "ip:port" of each of its machines
        self._links: dict[str, Link] = {}
        self._recent: deque[float] = deque(maxlen=32)  # seconds of the latest requests
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to resolve and connect; neither a name server nor an upstream that is away is waited for."""
        self._task = asyncio.get_running_loop().create_task(self._keep_resolving())

    async def close(self) -> None:
        """Close all links."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*(link.close() for link in self._links.values()))
        self._links.clear()

    def up(self) -> bool:
        """Whether any address answers."""
        return any(link.up for link in self._links.values())

    def in_vain(self, left_s: float) -> bool:
        """Whether even the quickest of the latest requests took longer. Each time that is so one is forgotten,
        so that a slow spell cannot shut the door for good.
        """
        if left_s >= min(self._recent, default=0.0):
            return False
        self._recent.popleft()
        return True

    async def forward(self, request: Request, deliver: Deliver) -> None:
        """Forward over the least busy link; when it breaks, send the unanswered rows over another."""
        started = time.monotonic()
        waiting = dict.fromkeys(request.rows.ids)

        def note(answers: Sequence[Answer]) -> None:
            for answer in answers:
                waiting.pop(answer.row, None)
            deliver(answers)

        tried: set[str] = set()
        while True:
            link = self._least_busy(tried)
            tried.add(link.address)
            try:
                await link.forward(_only(request, waiting), note)
                self._recent.append(time.monotonic() - started)
                return
            except Unavailable:
                if not any(other.up and other.address not in tried for other in self._links.values()):
                    raise

    def _least_busy(self, tried: set[str]) -> Link:
        usable = [link for link in self._links.values() if link.up and link.address not in tried]
        if not usable:
            raise Unavailable("No upstream address answers.")
        return min(usable, key=lambda link: link.rows_in_flight)

    async def _keep_resolving(self) -> None:
        """Now and then while all is well, and at once when no address answers: it may have a new one."""
        resolved = -RESOLVE_S
        while True:
            if not self.up() or time.monotonic() - resolved > RESOLVE_S:
                await asyncio.gather(*map(self._resolve, range(len(self._addresses))))
                await self._relink()
                resolved = time.monotonic()
            await asyncio.sleep(LOOK_S)

    async def _resolve(self, number: int) -> None:
        """Look up one of the addresses; while a name server does not know it, what it gave last stays true."""
        address = self._addresses[number]
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except OSError as error:
            log.debug("cannot resolve %s: %s", address.host, error)
        else:
            self._found[number] = {str(Address(host=str(info[4][0]), port=address.port)) for info in infos}

    async def _relink(self) -> None:
        """Connect to what is new, leave what is gone."""
        found = set().union(*self._found.values())
        for gone in [name for name in self._links if name not in found]:
            await self._links.pop(gone).close()
        for new in sorted(found - set(self._links)):
            self._links[new] = self._connect(new)


def _only(request: Request, waiting: dict[int, None]) -> Request:
    """The request for the rows that still wait; the same object when that is all of them."""
    if len(waiting) == len(request.rows):
        return request
    keep = [i for i, row in enumerate(request.rows.ids) if row in waiting]
    return Request(
        request_id=request.request_id,
        rows=Rows(
            ids=tuple(request.rows.ids[i] for i in keep),
            tensors={name: tensor[keep] for name, tensor in request.rows.tensors.items()},
            state={name: tensor[keep] for name, tensor in request.rows.state.items()},
        ),
        bundle=request.bundle,
        operating_point=request.operating_point,
        start_stage=request.start_stage,
        thresholds=request.thresholds,
        deadline=request.deadline,
        want_probabilities=request.want_probabilities,
        purpose=request.purpose,
        traceparent=request.traceparent,
    )
