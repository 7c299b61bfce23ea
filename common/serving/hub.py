"""What the connections of one HTTP server share: the application, its limits, and who is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from common.serving.asgi import AsgiApp
from common.serving.exchange import QuickRoute
from common.serving.known_heads import KnownHeads

if TYPE_CHECKING:
    from common.serving.connection import Connection


NEVER = float("inf")


class Stage(Enum):
    """How far a connection's next request has arrived."""

    IDLE = auto()  # nothing of it
    HEAD = auto()
    BODY = auto()


# Looking a member up takes longer than most of what is done with it, twenty times as long as a name.
IDLE, HEAD, BODY = Stage.IDLE, Stage.HEAD, Stage.BODY


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What a connection may do."""

    head_s: float = 10.0  # from opening, or from the first byte of a request, to the end of its head
    body_s: float = 30.0  # from there to the end of its body
    idle_s: float = 75.0  # between a response and the next request
    half_closed_s: float = 1.0  # for the answers of a caller that has closed its side: it may have gone altogether
    head_bytes: int = 64 << 10
    head_fields: int = 256
    connections: int = 1024


@dataclass(slots=True, kw_only=True)
class Hub:
    """What the connections of a server share."""

    app: AsgiApp
    quick: Mapping[bytes, QuickRoute]  # path -> what answers small POST requests to it
    limits: HttpLimits
    heads: KnownHeads = field(default_factory=KnownHeads)
    connections: set[Connection] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    stopping: bool = False  # tasks that are cancelled now should say so to their callers

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a request in a task."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task
