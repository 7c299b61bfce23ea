"""What is over is gone at once: the collector looks seldom, and tensors and buffers may be large."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.bundle import Bundle
from common.errors import RequestError
from common.serving import stream
from common.serving.incoming import Incoming
from common.serving.job import Job
from common.serving.line import Line
from common.wire.channels import INFER_STREAM
from common.wire.http2 import MessageStream
from common.wire.http2_frames import opening
from tests.networks import write_skip
from tests.serving.chains import ask, inputs, make_request, make_tier
from tests.serving.sockets import calling, local, served, until

Left = Callable[[type], int]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_skip(tmp_path)[0]


@pytest.fixture
def left() -> Iterator[Left]:
    """Counts the new objects of a kind while the collector takes none away."""
    gc.collect()
    gc.disable()
    others = gc.get_objects()  # such as what the frames of a test that failed hold
    known = set(map(id, others))
    yield lambda kind: sum(issubclass(type(each), kind) and id(each) not in known for each in gc.get_objects())
    gc.enable()


@pytest.mark.parametrize("unary", [False, True])
async def test_what_was_answered(bundle: Bundle, left: Left, unary: bool) -> None:
    async with (
        served(make_tier(bundle, 1, 4, name="cloud")) as (_, address),
        calling(bundle, 0, 1, [address], unary=unary) as (device, pool),
    ):
        await until(pool.up)
        for seed in range(5):
            await ask(device, make_request(bundle, inputs(20, seed), point="full"))
        await until(lambda: left(Job) == 0)


async def test_what_was_withdrawn(bundle: Bundle, left: Left) -> None:
    stuck = make_tier(bundle, 1, 4, name="cloud")
    stuck.batcher.submit = lambda stage, chunk: None  # type: ignore[method-assign]
    async with (
        served(stuck) as (_, address),
        calling(bundle, 0, 1, [address], timeout_s=0.1) as (device, pool),
    ):
        await until(pool.up)
        answers = await ask(device, make_request(bundle, inputs(20), point="full"))
        assert {answer.degraded for answer in answers} == {"deadline"}
        await until(lambda: left(Job) == 0)


async def test_what_nobody_could_answer(bundle: Bundle, left: Left) -> None:
    relay = make_tier(bundle, 0, 0, name="relay")
    said: list[str] = []

    def ended(error: RequestError | None) -> None:
        said.append(str(error))

    for _ in range(3):
        relay.submit(make_request(bundle, inputs(4)), lambda answers: None, ended)
    assert said == ["No exit lies on this tier, and it has no upstream."] * 3
    assert left(Job) == 0
    await relay.close()


async def test_connections_that_never_stood(bundle: Bundle, left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten a second while upstream is away, each with a buffer."""
    tried: list[str] = []
    start = Line.__init__

    def counted(line: Line, address: str, **more: Any) -> None:
        tried.append(address)
        start(line, address, **more)

    monkeypatch.setattr(Line, "__init__", counted)
    monkeypatch.setattr(stream, "RETRY_S", 0.001)
    async with calling(bundle, 0, 1, [local(1)]):
        await until(lambda: len(tried) > 20)
        assert left(Line) <= 2


async def test_connections_of_tiers_that_have_gone(bundle: Bundle, left: Left) -> None:
    async with served(make_tier(bundle, 1, 4, name="cloud")) as (_, address):
        for _ in range(3):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(opening(path=INFER_STREAM, authority="cloud"))
            await reader.readexactly(9)
            writer.close()
        await until(lambda: left(MessageStream) + left(Incoming) == 0)
