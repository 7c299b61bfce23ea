"""Coroutines run at once up to their first wait: one that need not wait costs no task and no turn of the event loop.

Python 3.12 has eager tasks for this; until then the first step is taken by hand.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Rest(Generic[T]):
    """What is left of a coroutine after its first step; to be awaited once, in a task."""

    __slots__ = ("_coroutine", "_waiting")

    def __init__(self, coroutine: Coroutine[Any, Any, T], waiting: Any) -> None:
        self._coroutine = coroutine
        self._waiting = waiting  # what the first step waits for

    def __await__(self) -> Generator[Any, Any, T]:
        waiting = self._waiting
        while True:
            try:
                try:
                    value = yield waiting
                except BaseException as error:
                    waiting = self._coroutine.throw(error)
                else:
                    waiting = self._coroutine.send(value)
            except StopIteration as done:
                result: T = done.value
                return result


def begin(coroutine: Coroutine[Any, Any, T]) -> T | Rest[T]:
    """Run a coroutine until it waits: its result where it never does, else what is left of it.

    The first step runs outside any task, so it must not ask for the current one.
    """
    try:
        return Rest(coroutine, coroutine.send(None))
    except StopIteration as done:
        result: T = done.value
        return result
