"""A tier whose workers share its REST port: real processes, counted, killed and drained."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.networks import WIDTH, write_skip
from tests.processes import System, running, wait_for

WORKERS = 3
CALLERS = 16
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def ask(system: System, requests: int) -> None:
    """Each on a connection of its own, so that every process gets some."""
    for number in range(requests):
        row = np.random.default_rng(number).normal(0, 1, WIDTH).tolist()
        reply = httpx.post(system.rest + "/predict", json={"inputs": [row, row]}, timeout=10)
        assert reply.status_code == 200 and len(reply.json()["answers"]) == 2


def answers(system: System) -> float:
    return system.metric("device", "offramp_answers_total")


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    write_skip(tmp_path / "skip")
    with running(System(tmp_path, tmp_path / "skip", {"device": 1, "cloud": 3}, workers=WORKERS)) as started:
        wait_for(lambda: started.upstream_up("device"), "every process to find upstream")
        yield started


def test_workers_answer_are_counted_and_drain(system: System) -> None:
    first = system.processes["device"].pid
    workers = children(first)
    assert len(workers) == WORKERS - 1
    ask(system, 40)
    assert answers(system) == 80
    assert system.metric("device", "offramp_request_seconds_count") == 40
    assert system.metric("device", "offramp_answers_total", by="cloud") > 0
    assert system.metric("device", "offramp_upstream_state") == 1

    os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: len(children(first)) == WORKERS - 1 and workers[0] not in children(first), "another worker")
    wait_for(lambda: answers(system) == 80, "its metrics beside what the killed one had counted")
    ask(system, 20)
    assert answers(system) == 120

    workers = children(first)
    assert system.kill("device", signal.SIGTERM) == 0
    assert all(map(gone, workers))


async def test_a_killed_worker_loses_its_own_requests_alone(system: System) -> None:
    """Callers with open connections: one that was the killed worker's breaks once, and nobody else notices."""
    first = system.processes["device"].pid
    workers = children(first)
    rows = np.random.default_rng(0).normal(0, 1, (2, WIDTH)).tolist()
    answered, broken = [0] * CALLERS, [0] * CALLERS
    over = asyncio.Event()

    async def caller(number: int) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            while not over.is_set():
                try:
                    reply = await client.post(system.rest + "/predict", json={"inputs": rows})
                except httpx.TransportError:
                    broken[number] += 1
                else:
                    assert reply.status_code == 200 and len(reply.json()["answers"]) == 2
                    answered[number] += 1

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                assert not any(task.done() for task in callers)
                await asyncio.sleep(0.01)

    callers = [asyncio.create_task(caller(number)) for number in range(CALLERS)]
    await until(lambda: min(answered) > 5)
    os.kill(workers[0], signal.SIGKILL)
    await until(lambda: len(children(first)) == WORKERS - 1 and workers[0] not in children(first))
    before = list(answered)
    await until(lambda: all(now > then for now, then in zip(answered, before, strict=True)))
    over.set()
    await asyncio.gather(*callers)
    assert max(broken) <= 1 and min(broken) == 0


def test_workers_end_however_the_first_process_ends(system: System) -> None:
    workers = children(system.processes["device"].pid)
    system.kill("device")
    wait_for(lambda: all(map(gone, workers)), "the workers to end")


def test_a_taken_address_is_not_shared(tmp_path: Path) -> None:
    write_skip(tmp_path / "skip")
    system = System(tmp_path, tmp_path / "skip", {"device": 4}, workers=2)
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        host, _, port = system.rest.removeprefix("http://").partition(":")
        held.bind((host, int(port)))
        held.listen()
        command = [sys.executable, "-m", "offramp", "serve", "device", "--config", str(system.config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (
        done.returncode
        and f"tiers.device.rest is {host}:{port}, which cannot be opened (Address already in use)" in done.stderr
    )
