"""The seam between doors and tier: what every door calls, whatever protocol it speaks.

Doors convert and do nothing else. A test stands a core of its own behind a door and needs no network for it.
"""

from __future__ import annotations

from typing import Protocol

from common.bundle import Bundle
from common.limits import Limits
from common.serving.upstream import Deliver, Ended
from common.types import Request


class Withdrawable(Protocol):
    """A request under way."""

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        ...

    def withdraw(self) -> None:
        """Nobody waits for it any more."""
        ...


class Core(Protocol):
    """The tier as its doors see it."""

    @property
    def name(self) -> str:
        """The tier's name, as answers and metrics show it."""
        ...

    @property
    def bundle(self) -> Bundle:
        """The bundle that is served."""
        ...

    @property
    def limits(self) -> Limits:
        """What one request may ask for."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the tier can answer now; false while it starts and while it drains."""
        ...

    @property
    def operating_point(self) -> str:
        """The operating point of requests that name none."""
        ...

    def submit(self, request: Request, deliver: Deliver, ended: Ended) -> Withdrawable:
        """Begin to answer `request`: `deliver` as in `answer`, then `ended` once, unless it was withdrawn.

        Raises:
            RequestError: when it is refused at once.
        """
        ...

    async def answer(self, request: Request, deliver: Deliver) -> None:
        """Answer every row of `request`; `deliver` is called one or more times, rows in any order.

        Returns when every row has its answer. Cancelling it withdraws the request.

        Raises:
            RequestError: for the request as a whole.
        """
        ...

    def refused(self, code: str) -> None:
        """Count a request that a door refused, by the error's code."""
        ...
