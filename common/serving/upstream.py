"""The seam between tiers: one method. The gRPC stream stands behind it, and so can anything else.

Upstream gives, per row, an Answer; or the call ends with a RequestError, which concerns every row that has none
yet. Nothing here is a coroutine: a task per request and hop would cost more than the rest of the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from common.errors import DeadlineExceeded, Overloaded, RequestError, Unavailable
from common.types import Answer, Degraded, Request

Deliver = Callable[[Sequence[Answer]], None]
Ended = Callable[[RequestError | None], None]


class Call(Protocol):
    """A request that was forwarded, as upstream sees it."""

    request: Request

    def answered(self, answers: Sequence[Answer]) -> None:
        """Some rows have their answer. They carry the hops of upstream's side, network time included."""
        ...

    def ended(self, error: RequestError | None) -> None:
        """Nothing more will come; `error` says why rows may be left. Called once, and not after `withdraw`."""
        ...


class Upstream(Protocol):
    """Whoever answers the rows that this tier is not sure of."""

    def forward(self, call: Call) -> None:
        """Begin to ask; returns at once. The caller keeps the time: it withdraws what takes too long."""
        ...

    def withdraw(self, call: Call) -> None:
        """Forget a call: nobody waits for it any more."""
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
