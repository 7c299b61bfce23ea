"""The short form of `make chaos`: the same faults on real processes, a round of each."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.chaos import ROWS_IN_FLIGHT, Checker, kill_busy_edge, kill_frozen_edge
from tests.networks import Skip, write_skip
from tests.processes import System, running, wait_for

STAGES = {"device": 1, "edge": 2, "cloud": 1}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Skip]]:
    root = tmp_path_factory.mktemp("faults")
    _, reference = write_skip(root / "skip")
    with running(System(root, root / "skip", STAGES)) as started:
        wait_for(lambda: started.upstream_up("device") and started.upstream_up("edge"), "both hops")
        yield started, reference


async def test_kill_9_of_the_edge_with_every_row_in_flight(system: tuple[System, Skip]) -> None:
    checker = Checker(*system)
    await kill_frozen_edge(checker)
    assert checker.outcomes == {("device", "upstream_unavailable"): ROWS_IN_FLIGHT}
    checker.outcomes.clear()
    await checker.flight()
    assert checker.outcomes == {("cloud", None): ROWS_IN_FLIGHT}


async def test_kill_9_of_the_edge_amid_requests(system: tuple[System, Skip]) -> None:
    checker = Checker(*system)
    await kill_busy_edge(checker, after_s=0.05)
    assert {("cloud", None), ("device", "upstream_unavailable")} <= checker.outcomes.keys()


async def test_a_frozen_edge_is_noticed_and_forgiven(system: tuple[System, Skip]) -> None:
    device, reference = system
    checker = Checker(device, reference)
    device.freeze("edge")
    try:
        wait_for(lambda: not device.upstream_up("device"), "the silence to be noticed")
        await checker.flight(40)
        assert checker.outcomes == {("device", "upstream_unavailable"): 40}
    finally:
        device.thaw("edge")
    wait_for(lambda: device.upstream_up("device") and device.upstream_up("edge"), "the edge to speak again")
    checker.outcomes.clear()
    await checker.flight(40)
    assert checker.outcomes == {("cloud", None): 40}


async def test_sigterm_drains_and_the_cloud_may_restart(system: tuple[System, Skip]) -> None:
    device, reference = system
    checker = Checker(device, reference)
    flight = asyncio.create_task(checker.flight())
    await asyncio.sleep(0.02)
    status = await asyncio.get_running_loop().run_in_executor(None, device.kill, "cloud", signal.SIGTERM)
    assert status == 0
    await flight
    assert sum(checker.outcomes.values()) == ROWS_IN_FLIGHT
    checker.outcomes.clear()
    await checker.flight(40)
    assert checker.outcomes == {("edge", "upstream_unavailable"): 40}
    device.start("cloud")
    wait_for(lambda: device.upstream_up("edge"), "the cloud to be back")


def test_counts_add_up(system: tuple[System, Skip]) -> None:
    device, reference = system
    x_BD = Checker(device, reference).x_BD
    before = device.metric("device", "offramp_answers_total")
    httpx.post(device.rest + "/predict", json={"inputs": x_BD.tolist()}, timeout=30).raise_for_status()
    assert device.metric("device", "offramp_answers_total") - before == len(x_BD)


def test_a_wrong_config_opens_no_port(tmp_path: Path) -> None:
    import subprocess
    import sys

    write_skip(tmp_path / "skip")
    (tmp_path / "tiers.yaml").write_text("bundle: skip\ntiers:\n  device: {stages: 9, rest: 127.0.0.1:0}\n")
    done = subprocess.run(
        [sys.executable, "-m", "offramp", "serve", "device", "--config", "tiers.yaml"],
        cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(Path(__file__).parents[1])}, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
