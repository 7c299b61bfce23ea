"""The sending end of a hop as a process of its own: `bare PORT`, or `offramp CONFIG` for a device tier.

The device tier is the one that `offramp serve` would run, without a door: requests are handed to it with their
activation, it passes them on, and the time counts until their answer is there. Questions come as JSON lines:
{"kilobytes", "in_flight", "count"}.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from common.serving.interpreter import settle
from offramp.load_report import percentile

_GIVE_UP_S = 30.0


class TierClient:
    """A device tier in this process whose upstream is the edge under test."""

    def __init__(self, config: Path) -> None:
        from offramp.roles import compose
        from offramp.system import load_system

        self._server = compose(load_system(config), "device")
        self._tier = self._server.tier
        self._ids = itertools.count()
        self._compute_ms: list[float] = []  # of the edge, since it was asked last

    async def open(self) -> None:
        """Open its doors, wait for its upstream, and set the interpreter as a tier's process does."""
        await self._server.start()
        upstream = self._tier.forwarder.upstream
        until = time.monotonic() + _GIVE_UP_S
        while not upstream.up():
            if time.monotonic() > until:
                raise RuntimeError("the edge did not answer")
            await asyncio.sleep(0.02)
        settle()

    async def run(self, rows: np.ndarray, in_flight: int, count: int) -> list[int]:
        """Nanoseconds from handing over each request to its answer."""
        taken: list[int] = []
        left = itertools.repeat(None, count)

        async def client() -> None:
            for _ in left:
                begin = time.perf_counter_ns()
                answers = await self._one(rows)
                taken.append(time.perf_counter_ns() - begin)
                self._compute_ms.append(answers[0].hops[-1].compute_ms)
                if answers[0].degraded is not None or answers[0].tier != "edge":
                    raise RuntimeError(f"a row was not answered by the edge: {answers[0]}")

        await asyncio.gather(*(client() for _ in range(in_flight)))
        return taken

    def compute_us(self) -> float:
        """The median time that the edge says its stage ran."""
        median = percentile(sorted(self._compute_ms), 0.5) * 1e3
        self._compute_ms.clear()
        return median

    async def _one(self, rows: np.ndarray) -> list[Any]:
        from common.types import Request, Rows

        answers: list[Any] = []
        request = Request(
            request_id=f"bench-{next(self._ids)}",
            rows=Rows(ids=(0,), tensors={"activation": rows}),
            bundle=self._tier.bundle.digest,
            operating_point="full",
            start_stage=1,
        )
        await self._tier.answer(request, answers.extend)
        return answers

    async def close(self) -> None:
        """Close it."""
        await self._server.stop()


async def _serve(kind: str, where: str) -> None:
    from benchmarks.floors.grpc_stream import BareClient

    client: BareClient | TierClient
    if kind == "bare":
        client = BareClient(int(where))
    else:
        client = TierClient(Path(where))
        await client.open()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        rows = np.random.default_rng(0).random((1, asked["kilobytes"] * 256), np.float32)
        payload: Any = rows.tobytes() if kind == "bare" else rows
        begin = time.perf_counter_ns()
        taken = sorted(await client.run(payload, asked["in_flight"], asked["count"]))
        reply = {"rate": len(taken) / (time.perf_counter_ns() - begin) * 1e9}
        reply |= {"p50_us": percentile(taken, 0.5) / 1e3, "p95_us": percentile(taken, 0.95) / 1e3}
        reply["compute_us"] = client.compute_us()
        print(json.dumps(reply), flush=True)
    await client.close()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], sys.argv[2]))
