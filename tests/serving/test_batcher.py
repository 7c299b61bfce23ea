import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DeadlineExceeded, Overloaded, Unavailable
from common.limits import Limits
from common.serving.batcher import INLINE_S, RATE_KEPT, Batcher, RunCost, Solo
from common.serving.chunk import Chunk
from common.serving.metrics import Metrics
from common.serving.tier import Tier
from common.types import Degraded, Tensors
from tests.networks import write_skip
from tests.serving.chains import Scripted, ask, inputs, make_request, make_tier
from tests.serving.sockets import until


class Gated:
    """A stage that takes long and runs only when the test lets it."""

    runtime, precision = "gated", "float32"

    def __init__(self, stage: object) -> None:
        self.stage, self.gate, self.threads, self.rows = stage, threading.Semaphore(0), set[str](), list[int]()

    def run(self, tensors: Tensors) -> Tensors:
        self.threads.add(threading.current_thread().name)
        self.rows.append(len(next(iter(tensors.values()))))
        self.gate.acquire(timeout=20)
        return self.stage.run(tensors)  # type: ignore[attr-defined,no-any-return]


def gate(tier: Tier, stage: int = 0) -> Gated:
    """Put a stage behind a gate; it is known to take long, so that it runs on the thread."""
    gated = Gated(tier.runners[stage])
    tier.runners[stage] = gated  # type: ignore[index]
    tier.batcher.costs[stage].learn(1, 10 * INLINE_S)
    return gated


async def at_gate(gated: Gated, runs: int = 1) -> None:
    """Wait until so many runs have come to the gate."""
    await until(lambda: len(gated.rows) >= runs)


@pytest.fixture
async def slow(tmp_path: Path):
    """A tier whose first stage waits at a gate."""
    bundle, reference = write_skip(tmp_path)
    tier = make_tier(bundle, 0, 4)
    gated = gate(tier)
    yield bundle, reference, tier, gated
    gated.gate.release(1000)
    await tier.close()


async def test_rows_join_while_the_runtime_is_busy(slow) -> None:
    bundle, reference, tier, gated = slow
    batches = [inputs(2, seed) for seed in range(10)]
    tasks = [asyncio.create_task(ask(tier, make_request(bundle, x_BD))) for x_BD in batches]
    await at_gate(gated)
    late = [asyncio.create_task(ask(tier, make_request(bundle, x_BD))) for x_BD in batches]
    await asyncio.sleep(0)
    gated.gate.release(1000)
    for x_BD, answers in zip(batches * 2, await asyncio.gather(*tasks, *late), strict=True):
        assert [a.label for a in answers] == [
            label for label, _ in reference.decide(x_BD, "max-probability", (0.9, 0.8, 0.0))
        ]
    assert sum(gated.rows) == 40 and len(gated.rows) <= 3, gated.rows
    assert all(name.startswith("runtime") for name in gated.threads)


async def test_what_waits_too_long_for_the_runtime(slow) -> None:
    bundle, _, tier, gated = slow
    first = asyncio.create_task(ask(tier, make_request(bundle, inputs(1))))
    await at_gate(gated)
    second = asyncio.create_task(ask(tier, make_request(bundle, inputs(1), timeout_s=0.02)))
    await asyncio.sleep(0.05)
    gated.gate.release(1000)
    await first
    with pytest.raises(DeadlineExceeded):
        await second


async def test_whose_time_has_run_out_hears_of_it_before_the_others_have_run(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    tier = make_tier(bundle, 0, 4, limits=Limits(run_rows=2))
    gated = gate(tier)
    before = [asyncio.create_task(ask(tier, make_request(bundle, inputs(2)))) for _ in range(8)]
    await at_gate(gated)
    hurried = asyncio.create_task(ask(tier, make_request(bundle, inputs(2), timeout_s=0.02)))
    await asyncio.sleep(0.05)
    gated.gate.release()
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(hurried, 20)
    await at_gate(gated, 2)
    assert len(gated.rows) == 2 and not any(task.done() for task in before[1:])
    gated.gate.release(1000)
    assert [len(answers) for answers in await asyncio.gather(*before)] == [2] * 8
    await tier.close()


async def test_rows_that_nobody_waits_for_leave_room_for_others(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    tier = make_tier(bundle, 0, 4, limits=Limits(queue_rows=4))
    gated = gate(tier)
    first = asyncio.create_task(ask(tier, make_request(bundle, inputs(1))))
    await at_gate(gated)
    gone = asyncio.create_task(ask(tier, make_request(bundle, inputs(4))))
    await asyncio.sleep(0.02)
    with pytest.raises(Overloaded):
        await ask(tier, make_request(bundle, inputs(1)))
    gone.cancel()
    await asyncio.sleep(0.02)
    last = asyncio.create_task(ask(tier, make_request(bundle, inputs(3))))
    await asyncio.sleep(0)
    assert tier.batcher.rows == 3
    gated.gate.release(1000)
    assert [len(await answers) for answers in (first, last)] == [1, 3]
    assert gated.rows == [1, 3]
    await tier.close()


async def test_the_runtime_goes_on_with_what_waits_while_the_event_loop_is_busy(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    tier = make_tier(bundle, 0, 4, limits=Limits(run_rows=2))
    gated = gate(tier)
    tasks = [asyncio.create_task(ask(tier, make_request(bundle, inputs(2, seed)))) for seed in range(3)]
    await at_gate(gated)
    gated.gate.release(2)
    end = time.monotonic() + 20
    while len(gated.rows) < 3 and time.monotonic() < end:
        time.sleep(0.001)  # the loop stands still all along
    begun = list(gated.rows)
    gated.gate.release(1000)
    await asyncio.gather(*tasks)
    await tier.close()
    assert begun == [2, 2, 2]


async def test_a_stage_that_fails_on_the_thread_fails_its_rows_alone(slow) -> None:
    bundle, _, tier, gated = slow
    first = asyncio.create_task(ask(tier, make_request(bundle, inputs(1))))
    await at_gate(gated)
    whole, gated.stage = gated.stage, None
    second = asyncio.create_task(ask(tier, make_request(bundle, inputs(1))))
    await asyncio.sleep(0)
    gated.gate.release(1000)
    with pytest.raises(Unavailable):
        await first
    with pytest.raises(Unavailable):
        await second
    gated.stage = whole
    assert len(await ask(tier, make_request(bundle, inputs(3)))) == 3


async def test_between_two_stages_an_expired_row_has_its_exit(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    tier = make_tier(bundle, 0, 4, upstream=Scripted(lambda request, deliver: None))
    gated = gate(tier, stage=1)
    blocking = asyncio.create_task(ask(tier, make_request(bundle, inputs(1), point="full")))
    await at_gate(gated)
    late = asyncio.create_task(ask(tier, make_request(bundle, inputs(3), point="full", timeout_s=0.05)))
    await asyncio.sleep(0.1)
    gated.gate.release(1000)
    # The runtime was busy all along: not even the first exit of the late rows could be computed.
    with pytest.raises(DeadlineExceeded):
        await late
    await blocking
    await tier.close()


async def test_rows_that_expire_behind_an_exit_are_answered_from_it(tmp_path: Path) -> None:
    bundle, reference = write_skip(tmp_path)
    tier = make_tier(bundle, 0, 4)
    stage = tier.runners[0]

    class Late:
        runtime, precision = "late", "float32"

        def run(self, tensors: Tensors) -> Tensors:
            time.sleep(0.05)  # the deadline passes while stage 0 runs
            return stage.run(tensors)

    tier.runners[0] = Late()  # type: ignore[index]
    x_BD = inputs(3)
    answers = await ask(tier, make_request(bundle, x_BD, point="full", timeout_s=0.03))
    assert {(a.exit, a.degraded) for a in answers} == {(0, Degraded.DEADLINE)}
    assert [a.label for a in answers] == reference.logits(x_BD)[0].argmax(1).tolist()
    await tier.close()


def test_the_cost_of_a_run_is_scaled_from_what_is_known() -> None:
    cost = RunCost()
    assert cost.expect(64) == 0.0
    cost.learn(1, 0.001)
    assert cost.expect(1) == 0.001 and cost.expect(8) == pytest.approx(0.008)
    for _ in range(200):
        cost.learn(8, 0.002)
    assert cost.expect(8) == pytest.approx(0.002) and cost.expect(32) == pytest.approx(0.008)


def test_a_run_is_made_smaller_only_where_that_is_in_time_and_costs_little() -> None:
    cost, ones = RunCost(), [1] * 64
    assert cost.in_time(ones, 0.001) == 64, "nothing is known"
    cost.learn(1, 0.001)
    assert cost.in_time(ones, 0.017) == 64, "nothing is known of so many rows"
    cost.learn(64, 0.064)
    assert cost.in_time(ones, 1.0) == 64
    assert cost.in_time(ones, 0.017) == 31 and cost.in_time([1], 0.0001) == 1, "twice the rows take twice the time"
    assert cost.in_time(ones, 0.0005) == 64, "not even one row would be in time"
    assert cost.in_time([3] * 21, 0.017) == 21, "63 rows have not been run yet"
    assert cost.in_time([20, 20, 24], 0.033) == 2 and cost.in_time([32, 32], 0.017) == 2, "chunks stay whole"
    for _ in range(1000):
        cost.learn(64, 0.002)
    assert cost.in_time(ones, 0.0015) == 64, "64 rows take hardly longer than one"


@given(
    costs=st.dictionaries(st.integers(1, 300), st.floats(1e-6, 10.0), max_size=9),
    chunks=st.lists(st.integers(1, 70), min_size=1, max_size=40),
    seconds=st.floats(-1.0, 10.0),
)
def test_a_smaller_run_is_expected_in_time_and_keeps_the_rate(
    costs: dict[int, float], chunks: list[int], seconds: float
) -> None:
    cost = RunCost()
    for rows, took in costs.items():
        cost.learn(rows, took)
    took_C = [cost._at_most(sum(chunks[:count])) for count in range(len(chunks) + 1)]  # by the number of chunks
    count = cost.in_time(chunks, seconds)
    assert 1 <= count <= len(chunks)
    if count < len(chunks):
        held, rows = sum(chunks[:count]), sum(chunks)
        assert took_C[count] <= seconds < took_C[-1]
        assert held / took_C[count] >= RATE_KEPT * rows / took_C[-1] * (1 - 1e-9)
        assert all(took > seconds for took in took_C[count + 1 :]), "no more than needed"


def test_a_size_whose_first_run_was_held_up_is_tried_again() -> None:
    cost = RunCost()
    cost.learn(32, 0.010)
    cost.learn(64, 0.5)
    assert cost.expect(64) == 0.5, "where it is to run"
    tries = 0
    while cost.in_time([1] * 64, 0.012) < 64:
        tries += 1
    assert 300 < tries < 1000


async def test_the_oldest_row_is_not_made_late_by_those_that_would_share_its_run(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    tier = make_tier(bundle, 0, 4)
    gated = gate(tier)
    tier.batcher.costs[0] = RunCost()
    tier.batcher.costs[0].learn(1, 10.0)
    tier.batcher.costs[0].learn(8, 80.0)
    tasks = [asyncio.create_task(ask(tier, make_request(bundle, inputs(1), timeout_s=100)))]
    await at_gate(gated)
    for timeout_s in (25, *[100] * 7):
        tasks.append(asyncio.create_task(ask(tier, make_request(bundle, inputs(1), timeout_s=timeout_s))))
        await asyncio.sleep(0)
    gated.gate.release(1000)
    assert [len(answers) for answers in await asyncio.gather(*tasks)] == [1] * 9
    assert gated.rows == [1, 3, 5]
    await tier.close()


async def test_what_a_smaller_run_leaves_waits_in_its_order() -> None:
    ran: list[list[str]] = []

    class Stage:
        def run(self, tensors: Tensors) -> Tensors:
            return tensors

    def finish(stage: int, chunks: list[Chunk], *_: object) -> None:
        ran.append([chunk.job.request.id for chunk in chunks])

    runners: Any = {0: Stage()}
    batcher = Batcher(runners, run_rows=64, finish=finish, expire=lambda chunk: None, metrics=Metrics("alone"))
    batcher.costs[0].learn(4, 1e-4)
    batcher.costs[0].learn(1, 1e-4)
    batcher.costs[0].in_time = lambda chunks, seconds: 1 if len(chunks) > 2 else len(chunks)  # type: ignore[method-assign]
    for name, key in ("a", 1), ("b", 2), ("c", 1), ("d", 2), ("e", 1), ("f", 2):
        request = SimpleNamespace(id=name, deadline=SimpleNamespace(at=time.monotonic() + 100))
        job: Any = SimpleNamespace(request=request, over=False)
        batcher.submit(0, Chunk(job=job, ids=(0,), tensors={"x": inputs(1)}, key=(key,)))
    await until(lambda: len(ran) >= 4)
    assert ran == [["a"], ["b"], ["c", "e"], ["d", "f"]] and batcher.rows == 0
    batcher.close()


def test_alone_is_learnt_and_unlearnt() -> None:
    solo = Solo()
    assert not solo.now()
    for _ in range(Solo.ALONE):
        solo.saw(1)
    answers = [solo.now() for _ in range(2 * Solo.PROBE)]
    assert answers.count(False) == 2, "now and then it looks whether others have come"
    solo.saw(2)
    assert not any(solo.now() for _ in range(10))


async def test_a_single_caller_is_answered_without_a_round_of_the_loop(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    tier = make_tier(bundle, 0, 4)
    for _ in range(Solo.ALONE + 1):
        await ask(tier, make_request(bundle, inputs(1)))
    finished_at_once = 0
    for _ in range(Solo.PROBE):
        answer = tier.answer(make_request(bundle, inputs(1)), lambda answers: None)
        try:
            answer.send(None)
        except StopIteration:
            finished_at_once += 1
        else:
            answer.close()
            await asyncio.sleep(0.01)
    assert finished_at_once > Solo.PROBE // 2
    await tier.close()


async def test_a_request_in_very_many_parts(tmp_path: Path) -> None:
    bundle, reference = write_skip(tmp_path)
    tier = make_tier(bundle, 0, 4, limits=Limits(run_rows=1))
    for _ in range(Solo.ALONE + 1):
        await ask(tier, make_request(bundle, inputs(1)))
    x_BD = inputs(1000)
    answers = await ask(tier, make_request(bundle, x_BD))
    assert [a.label for a in answers] == [
        label for label, _ in reference.decide(x_BD, "max-probability", (0.9, 0.8, 0.0))
    ]
    await tier.close()


def test_a_run_that_was_held_up_says_little_about_the_next() -> None:
    cost = RunCost()
    for _ in range(50):
        for seconds in (0.0002, 0.0002, 0.005):  # the last waited for the interpreter
            cost.learn(8, seconds)
        assert cost.expect(8) < INLINE_S
    for _ in range(200):
        cost.learn(8, 0.004)
    assert cost.expect(8) > INLINE_S
