"""Faults on real processes, and the check that holds through all of them: no row is lost, doubled or wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
import numpy as np

from tests.networks import Skip
from tests.processes import System, wait_for
from tests.serving.chains import inputs

ROWS_IN_FLIGHT = 200


class Checker:
    """Sends rows and holds every answer against the reference network."""

    def __init__(self, system: System, reference: Skip) -> None:
        self.system = system
        self.x_BD = inputs(512, seed=3)
        self.labels = [z_BC.argmax(1) for z_BC in reference.logits(self.x_BD)]
        self.outcomes: Counter[tuple[str, str | None]] = Counter()

    def check(self, rows: list[int], response: httpx.Response) -> None:
        """One answer per row, in order, and each is what its exit says."""
        assert response.status_code == 200, response.text
        answers: list[dict[str, Any]] = response.json()["answers"]
        assert len(answers) == len(rows)
        for row, answer in zip(rows, answers, strict=True):
            assert answer["label"] == self.labels[answer["exit"]][row], (row, answer)
            assert (answer["exit"] == 2) == (answer["degraded"] is None), answer
            self.outcomes[answer["tier"], answer["degraded"]] += 1

    async def send(self, client: httpx.AsyncClient, rows: list[int]) -> None:
        body = {"inputs": self.x_BD[rows].tolist(), "operating_point": "full"}
        self.check(rows, await client.post(self.system.rest + "/predict", json=body))

    async def flight(self, rows: int = ROWS_IN_FLIGHT, per_request: int = 4) -> None:
        """So many rows at once, in small requests."""
        async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=100)) as client:
            chosen = [int(i) for i in np.random.default_rng(0).permutation(512)[:rows]]
            await asyncio.gather(
                *(self.send(client, chosen[at : at + per_request]) for at in range(0, rows, per_request))
            )

    async def stream(self, stop: asyncio.Event, callers: int = 50, per_request: int = 4) -> int:
        """Callers that ask again and again, 200 rows in flight at any time; returns the rows sent."""
        sent = 0

        async def ask(client: httpx.AsyncClient, caller: int) -> None:
            nonlocal sent
            rows = [(caller * per_request + i) % 512 for i in range(per_request)]
            while not stop.is_set():
                await self.send(client, rows)
                sent += per_request

        async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=100)) as client:
            await asyncio.gather(*(ask(client, caller) for caller in range(callers)))
        return sent


async def kill_frozen_edge(checker: Checker) -> float:
    """kill -9 of an edge that was frozen until every row was in flight to it.

    Returns the seconds from the new edge's readiness to forwarding again.
    """
    system = checker.system
    loop = asyncio.get_running_loop()
    before = system.metric("device", "offramp_forwarded_bytes_total")
    system.freeze("edge")
    flight = asyncio.create_task(checker.flight())
    least = 24 * ROWS_IN_FLIGHT  # the activations alone are larger
    while await loop.run_in_executor(None, system.metric, "device", "offramp_forwarded_bytes_total") < before + least:
        if flight.done():  # on a busy machine the silence is noticed before all are under way
            break
        await asyncio.sleep(0.01)
    await loop.run_in_executor(None, system.kill, "edge")
    await flight
    return await restart_edge(system)


async def kill_busy_edge(checker: Checker, after_s: float) -> float:
    """kill -9 of an edge amid a stream of requests that goes on through the fault and the return.

    Returns the seconds from the new edge's readiness to forwarding again.
    """
    system = checker.system
    stop = asyncio.Event()
    stream = asyncio.create_task(checker.stream(stop))
    before = sum(checker.outcomes.values())
    while sum(checker.outcomes.values()) == before:
        await asyncio.sleep(0.005)
    await asyncio.sleep(after_s)
    await asyncio.get_running_loop().run_in_executor(None, system.kill, "edge")
    seconds = await restart_edge(system)
    await asyncio.sleep(0.1)
    stop.set()
    sent = await stream
    assert sum(checker.outcomes.values()) == before + sent
    return seconds


async def restart_edge(system: System) -> float:
    """Start the edge again and wait until both hops stand."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, system.start, "edge")
    seconds = await loop.run_in_executor(None, wait_for, lambda: system.upstream_up("device"), "forwarding again")
    await loop.run_in_executor(None, wait_for, lambda: system.upstream_up("edge"), "the cloud behind the new edge")
    return seconds
