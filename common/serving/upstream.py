"""The seam between tiers: one method. The gRPC stream stands behind it, and so can anything else.

Upstream gives, per row, an Answer; or it raises a RequestError, which concerns every row that has none yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from common.errors import DeadlineExceeded, Overloaded, RequestError, Unavailable
from common.types import Answer, Degraded, Request

Deliver = Callable[[Sequence[Answer]], None]


class Upstream(Protocol):
    """Whoever answers the rows that this tier is not sure of."""

    async def forward(self, request: Request, deliver: Deliver) -> None:
        """Ask for answers to all rows of `request`; `deliver` is called whenever some are there.

        Returns when every row has its answer. Answers carry the hops of upstream's side with the network
        time to reach it. Must not outlive the request's deadline by more than the caller's own patience:
        the caller cancels.

        Raises:
            RequestError: for the rows without an answer; `degraded_reason` tells what it means to a caller.
        """
        ...

    def in_vain(self, left_s: float) -> bool:
        """Whether upstream would surely need more than `left_s` seconds."""
        ...


def degraded_reason(error: RequestError) -> Degraded:
    """What an answer says when upstream failed with `error`."""
    match error:
        case DeadlineExceeded():
            return Degraded.DEADLINE
        case Unavailable():
            return Degraded.UPSTREAM_UNAVAILABLE
        case Overloaded():
            return Degraded.UPSTREAM_OVERLOADED
        case _:
            return Degraded.UPSTREAM_REJECTED
