"""A request that is over is gone at once, with its tensors: the collector looks seldom, and tensors may be large."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.bundle import Bundle
from common.errors import RequestError
from common.serving.job import Job
from tests.networks import write_skip
from tests.serving.chains import ask, inputs, make_request, make_tier
from tests.serving.sockets import calling, served, until

Left = Callable[[], int]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_skip(tmp_path)[0]


@pytest.fixture
def left() -> Iterator[Left]:
    """Counts the requests that nothing but the collector would take away."""
    gc.collect()
    gc.disable()
    yield lambda: sum(isinstance(each, Job) for each in gc.get_objects())
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
        await until(lambda: left() == 0)


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
        await until(lambda: left() == 0)


async def test_what_nobody_could_answer(bundle: Bundle, left: Left) -> None:
    relay = make_tier(bundle, 0, 0, name="relay")
    said: list[str] = []

    def ended(error: RequestError | None) -> None:
        said.append(str(error))

    for _ in range(3):
        relay.submit(make_request(bundle, inputs(4)), lambda answers: None, ended)
    assert said == ["No exit lies on this tier, and it has no upstream."] * 3
    assert left() == 0
    await relay.close()
