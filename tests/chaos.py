"""Faults on real processes, and the check that holds through all of them: no row is lost, doubled or wrong."""

from __future__ import annotations

import asyncio
import random
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


async def kill_edge_in_flight(checker: Checker, freeze: bool) -> float:
    """kill -9 of the edge with rows in flight; returns the seconds from its readiness to forwarding again.

    Frozen first, the edge has every row in flight when it dies; else it dies amid a stream of requests.
    """
    system = checker.system
    before = system.metric("device", "offramp_forwarded_bytes_total")
    if freeze:
        system.freeze("edge")
    flight = asyncio.create_task(checker.flight())
    loop = asyncio.get_running_loop()
    if freeze:
        least = 24 * ROWS_IN_FLIGHT  # the activations alone are larger
        while (
            await loop.run_in_executor(None, system.metric, "device", "offramp_forwarded_bytes_total") < before + least
        ):
            await asyncio.sleep(0.01)
    else:
        await asyncio.sleep(random.Random(0).uniform(0.005, 0.05))
    await loop.run_in_executor(None, system.kill, "edge")
    await flight
    await loop.run_in_executor(None, system.start, "edge")
    return await loop.run_in_executor(None, wait_for, lambda: system.upstream_up("device"), "forwarding again")
