"""Callers that wait for answers over HTTP: when one leaves, its request is withdrawn.

A bare timer or task per request would cost more than the rest of the door. One timer looks after all of them,
and only requests that it sees twice get a task that listens for their caller's departure.
"""

from __future__ import annotations

import asyncio

from common.serving.asgi import Receive

_LOOK_S = 0.02


class Caller:
    """One caller that waits; made by the task that serves it."""

    __slots__ = ("gone", "listener", "receive", "seen", "task")

    def __init__(self, receive: Receive, task: asyncio.Task[object] | None) -> None:
        self.receive = receive
        self.task = task
        self.listener: asyncio.Task[None] | None = None
        self.seen = False
        self.gone = False  # the task was cancelled because the caller left

    async def listen(self) -> None:
        """Wait until the caller leaves, then cancel its request."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self.task is not None:
            self.task.cancel()


class Callers:
    """All callers of a door that wait."""

    def __init__(self) -> None:
        self._waiting: set[Caller] = set()
        self._listening: set[Caller] = set()  # those that have waited for a while
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, receive: Receive) -> Caller:
        """Look after the caller whose request the current task serves; its body has been received."""
        caller = Caller(receive, asyncio.current_task())
        self._waiting.add(caller)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        return caller

    def leave(self, caller: Caller) -> None:
        """The request has ended, however."""
        self._waiting.discard(caller)
        if caller.listener is not None:
            caller.listener.cancel()
            self._listening.discard(caller)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for caller in [caller for caller in self._waiting if caller.seen]:
            self._waiting.discard(caller)
            self._listening.add(caller)
            caller.listener = loop.create_task(caller.listen())
        for caller in self._waiting:
            caller.seen = True
        self._timer = loop.call_later(_LOOK_S, self._look) if self._waiting else None
