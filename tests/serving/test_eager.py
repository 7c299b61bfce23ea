import asyncio

import pytest

from common.serving.eager import Rest, begin


async def work(*events: asyncio.Event) -> int:
    try:
        for event in events:
            await event.wait()
    except asyncio.CancelledError:
        return -1
    return len(events)


async def test_what_need_not_wait_is_done_at_once() -> None:
    assert begin(work()) == 0


async def test_what_waits_goes_on_in_a_task() -> None:
    events = asyncio.Event(), asyncio.Event()
    rest = begin(work(*events))
    assert isinstance(rest, Rest)
    task = asyncio.ensure_future(rest)
    for event in events:
        await asyncio.sleep(0)
        assert not task.done()
        event.set()
    assert await task == 2


async def test_what_it_waits_for_may_be_there_before_the_task() -> None:
    event = asyncio.Event()
    rest = begin(work(event))
    event.set()
    assert isinstance(rest, Rest) and await rest == 1


async def test_a_bare_turn_of_the_loop() -> None:
    async def turn() -> str:
        await asyncio.sleep(0)
        return "later"

    rest = begin(turn())
    assert isinstance(rest, Rest) and await rest == "later"


async def test_cancelling_reaches_the_coroutine() -> None:
    rest = begin(work(asyncio.Event()))
    assert isinstance(rest, Rest)
    task = asyncio.ensure_future(rest)
    await asyncio.sleep(0)
    task.cancel()
    assert await task == -1


async def test_errors_are_those_of_the_coroutine() -> None:
    async def fail(event: asyncio.Event | None) -> None:
        if event is not None:
            await event.wait()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        begin(fail(None))
    event = asyncio.Event()
    rest = begin(fail(event))
    event.set()
    assert isinstance(rest, Rest)
    with pytest.raises(ZeroDivisionError):
        await rest
