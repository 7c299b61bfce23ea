import asyncio
import sys
from asyncio.subprocess import Process
from typing import Any

import pytest

from common.errors import ConfigError
from common.serving.merged import Exposition
from common.serving.metrics import Metrics
from common.serving.workers import Workers

WORKER = """
import sys
print("x ready: now", flush=True)
for line in sys.stdin:
    number = int(line.split()[1])
    if MODE == "slow" and number == 1:
        continue
    if MODE == "dies":
        break
    if number == 2:
        print("[1, \\"late\\"]", flush=True)
    print(f'[{number}, "# TYPE a counter\\\\na_total 2.0\\\\n"]', flush=True)
"""


def command(mode: str) -> list[str]:
    return [sys.executable, "-c", f"MODE = {mode!r}\n{WORKER}"]


def metrics(rows: int, up: bool, waiting: int) -> bytes:
    result = Metrics("device")
    result.answered("edge", 1, None, rows)
    result.stage_ran(0, 0.002, rows)
    result.upstream_is("a:1", up)
    result.watch_queue(lambda: waiting)
    return result.text()


def lines(text: bytes) -> list[str]:
    return text.decode().splitlines()


def test_expositions_are_added_up() -> None:
    total, ended = Exposition(), Exposition()
    total.add(metrics(3, True, 5))
    total.add(metrics(4, False, 7))
    ended.add(metrics(10, False, 100))
    total.add_counts(ended)
    found = lines(total.text())
    assert 'offramp_answers_total{by="edge",degraded="",exit="1",tier="device"} 17.0' in found
    assert 'offramp_batch_rows_bucket{le="4",stage="0",tier="device"} 2.0' in found
    assert 'offramp_batch_rows_sum{stage="0",tier="device"} 17.0' in found
    assert 'offramp_queue_rows{tier="device"} 12.0' in found
    assert 'offramp_upstream_state{tier="device",upstream="a:1"} 0.0' in found
    kinds = [line for line in found if line.startswith("# TYPE")]
    assert kinds == [line for line in lines(metrics(1, True, 0)) if line.startswith("# TYPE")]


async def test_what_all_have_counted(caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers(command("plain"), {}, 2)
    await workers.start()
    for _ in range(3):  # the second time an answer to the first question comes late
        assert b"a_total 5.0" in await workers.metrics(b"# TYPE a counter\na_total 1.0\n")
    await workers.stop(5.0)
    assert workers.pids == [None, None]


async def test_one_that_does_not_answer_is_left_out_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.serving.workers._ASK_S", 0.05)
    workers = Workers(command("slow"), {}, 1)
    await workers.start()
    assert b"a_total 1.0" in await workers.metrics(b"# TYPE a counter\na_total 1.0\n")
    monkeypatch.setattr("common.serving.workers._ASK_S", 10)
    assert b"a_total 3.0" in await workers.metrics(b"# TYPE a counter\na_total 1.0\n")
    await workers.stop(5.0)


async def test_one_that_ends_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.serving.workers._FIRST_PAUSE_S", 0.01)
    workers = Workers(command("dies"), {}, 1)
    await workers.start()
    (first,) = workers.pids
    await workers.metrics(b"")
    while workers.pids in ([first], [None]):
        await asyncio.sleep(0.01)
    await workers.stop(5.0)


@pytest.mark.parametrize("steady, pauses", [(60.0, ["0.01", "0.02"]), (0.0, ["0.01", "0.01"])])
async def test_one_that_ran_for_long_is_trusted_again(
    steady: float, pauses: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("common.serving.workers._FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("common.serving.workers._STEADY_S", steady)
    workers = Workers(command("dies"), {}, 1)
    await workers.start()
    for ends in (1, 2):
        await workers.metrics(b"")
        async with asyncio.timeout(20):
            while len(said := [r.getMessage() for r in caplog.records if "is started again" in r.getMessage()]) < ends:
                await asyncio.sleep(0.01)
            while not workers._workers[0].ready:
                await asyncio.sleep(0.01)
    assert [line.split()[-2] for line in said] == pauses
    await workers.stop(5.0)


async def test_one_that_the_system_cannot_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.serving.workers._FIRST_PAUSE_S", 0.01)
    workers = Workers(command("dies"), {}, 1)
    await workers.start()
    (first,) = workers.pids
    create, failed = asyncio.create_subprocess_exec, 0

    async def starved(*args: Any, **options: Any) -> Process:
        nonlocal failed
        failed += 1
        if failed <= 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await create(*args, **options)

    monkeypatch.setattr("asyncio.create_subprocess_exec", starved)
    await workers.metrics(b"")
    async with asyncio.timeout(20):
        while workers.pids in ([first], [None]):
            await asyncio.sleep(0.01)
    assert failed == 3
    await workers.stop(5.0)


async def test_one_that_does_not_start() -> None:
    workers = Workers([sys.executable, "-c", "raise SystemExit(1)"], {}, 1)
    with pytest.raises(ConfigError, match="did not become ready"):
        await workers.start()
    await workers.stop(1.0)
