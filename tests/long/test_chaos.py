"""`make chaos`: faults again and again on real processes, with the figures printed."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import ROWS_IN_FLIGHT, Checker, kill_busy_edge, kill_frozen_edge
from tests.networks import write_skip
from tests.processes import System, running, wait_for

ROUNDS = 10
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.fixture
def checker(tmp_path: Path) -> Iterator[Checker]:
    _, reference = write_skip(tmp_path / "skip")
    with running(System(tmp_path, tmp_path / "skip", {"device": 1, "edge": 2, "cloud": 1})) as system:
        wait_for(lambda: system.upstream_up("device") and system.upstream_up("edge"), "both hops")
        yield Checker(system, reference)


def report(checker: Checker, resumed: list[float]) -> None:
    print(f"\nkilled {len(resumed)} times, {sum(checker.outcomes.values())} rows: {dict(checker.outcomes)}")
    print(f"forwarding again after ready: longest {max(resumed):.2f} s")
    assert max(resumed) < 2.0, "the bound on recovery, not a claim of speed"


async def test_kill_9_with_every_row_in_flight(checker: Checker) -> None:
    resumed = [await kill_frozen_edge(checker) for _ in range(ROUNDS)]
    assert checker.outcomes == {("device", "upstream_unavailable"): ROUNDS * ROWS_IN_FLIGHT}
    report(checker, resumed)


async def test_kill_9_amid_requests(checker: Checker) -> None:
    rng = random.Random(0)
    resumed = [await kill_busy_edge(checker, rng.uniform(0.0, 0.3)) for _ in range(ROUNDS)]
    report(checker, resumed)
