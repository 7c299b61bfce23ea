"""`make chaos`: faults again and again on real processes, with the figures printed."""

import asyncio
from pathlib import Path

import pytest

from tests.chaos import ROWS_IN_FLIGHT, Checker, kill_edge_in_flight
from tests.networks import write_skip
from tests.processes import System, running, wait_for

ROUNDS = 10


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("freeze", [True, False])
async def test_kill_9_of_the_edge_ten_times(tmp_path: Path, freeze: bool) -> None:
    _, reference = write_skip(tmp_path / "skip")
    system = System(tmp_path, tmp_path / "skip", {"device": 1, "edge": 2, "cloud": 1})
    with running(system):
        wait_for(lambda: system.upstream_up("device") and system.upstream_up("edge"), "both hops")
        checker = Checker(system, reference)
        resumed = []
        for _ in range(ROUNDS):
            resumed.append(await kill_edge_in_flight(checker, freeze))
            await asyncio.get_running_loop().run_in_executor(
                None, wait_for, lambda: system.upstream_up("edge"), "the cloud behind the new edge"
            )
        assert sum(checker.outcomes.values()) == ROUNDS * ROWS_IN_FLIGHT
        print(
            f"\nkilled {ROUNDS} times (frozen first: {freeze}), {ROUNDS * ROWS_IN_FLIGHT} rows: {dict(checker.outcomes)}"
        )
        print(f"forwarding again after ready: longest {max(resumed):.2f} s")
        assert max(resumed) < 2.0, "the contract's bound on recovery, not a speed claim"
