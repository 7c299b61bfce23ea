"""All addresses of one upstream: names are resolved again and again, one link each, fewest rows in flight first."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from common.address import Address
from common.errors import RequestError, Unavailable
from common.serving.upstream import Call
from common.types import Answer, Request, Rows

log = logging.getLogger(__name__)

LOOK_S = 0.25
RESOLVE_S = 10.0


class Link(Protocol):
    """A connection to one address."""

    address: str
    up: bool

    @property
    def rows_in_flight(self) -> int:
        """Rows that wait for this address."""
        ...

    def send(self, call: Call) -> None:
        """Put a call on its way; ends it with Unavailable while the address is down or when the connection breaks."""
        ...

    def withdraw(self, call: Call) -> None:
        """Forget a call that was sent here."""
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
        self._attempts: dict[Call, Attempt] = {}
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

    def forward(self, call: Call) -> None:
        """Forward over the least busy link; when it breaks, send the unanswered rows over another."""
        attempt = self._attempts[call] = Attempt(self, call)
        self.send(attempt)

    def withdraw(self, call: Call) -> None:
        """Forget a call."""
        attempt = self._attempts.pop(call, None)
        if attempt is not None and attempt.link is not None:
            attempt.link.withdraw(attempt)

    def send(self, attempt: Attempt) -> None:
        """Send an attempt over the best link that it has not tried."""
        usable = [link for link in self._links.values() if link.up and link.address not in attempt.tried]
        if not usable:
            self.through(attempt, attempt.error or Unavailable("No upstream address answers."))
            return
        attempt.link = usable[0] if len(usable) == 1 else min(usable, key=lambda link: link.rows_in_flight)
        attempt.tried.add(attempt.link.address)
        attempt.link.send(attempt)

    def through(self, attempt: Attempt, error: RequestError | None) -> None:
        """An attempt has come to its end."""
        if self._attempts.pop(attempt.call, None) is not None:
            attempt.call.ended(error)

    def took(self, seconds: float) -> None:
        """Remember how long all answers of a request took."""
        self._recent.append(seconds)

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


class Attempt:
    """A call on its way over one link after the other."""

    __slots__ = ("_pool", "_waiting", "call", "error", "link", "request", "started", "tried")

    def __init__(self, pool: Pool, call: Call) -> None:
        self._pool = pool
        self._waiting = set(call.request.rows.ids)
        self.call = call
        self.request = call.request
        self.link: Link | None = None
        self.tried: set[str] = set()
        self.error: RequestError | None = None
        self.started = time.monotonic()

    def answered(self, answers: Sequence[Answer]) -> None:
        """Pass answers on; what is left is what another link may be asked for."""
        self._waiting.difference_update(answer.row for answer in answers)
        if not self._waiting:
            self._pool.took(time.monotonic() - self.started)
        self.call.answered(answers)

    def ended(self, error: RequestError | None) -> None:
        """A link is through with it; one that is not there leaves the rest to another."""
        self.link = None
        if isinstance(error, Unavailable) and self._waiting:
            self.error = error
            self.request = _only(self.request, self._waiting)
            self._pool.send(self)
        else:
            self._pool.through(self, error)


def _only(request: Request, waiting: set[int]) -> Request:
    """The request for the rows that still wait; the same object when that is all of them."""
    if len(waiting) == len(request.rows):
        return request
    keep = [i for i, row in enumerate(request.rows.ids) if row in waiting]
    rows = Rows(
        ids=tuple(request.rows.ids[i] for i in keep),
        tensors={name: tensor[keep] for name, tensor in request.rows.tensors.items()},
        state={name: tensor[keep] for name, tensor in request.rows.state.items()},
    )
    return dataclasses.replace(request, rows=rows)
