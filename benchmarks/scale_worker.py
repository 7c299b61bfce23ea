"""The client side of the scale benchmark, as processes of their own.

`soak BUNDLE-CONFIG`: a device and its REST door in this process; questions {"count"}.
`devices CONFIG PORT`: many devices, each with a stream of its own to one edge, or as many bare streams; questions
{"devices", "seconds", "bare"}. A device here relays: the edge runs all stages.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks.bodies import accepted_inputs, requests
from offramp.load_report import percentile

_GIVE_UP_S = 30.0


def _compose(config: Path, tier: str) -> Any:
    from offramp.roles import compose
    from offramp.system import load_system

    return compose(load_system(config), tier)


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Soak:
    """Requests through a device's REST door without a socket: array files, answered by the first exit."""

    def __init__(self, config: Path) -> None:
        from common.serving.rest import RestDoor

        self._server = _compose(config, "device")
        self._server.tier.ready = True
        self._door = RestDoor(self._server.tier)
        bodies = [request.split(b"\r\n\r\n", 1)[1] for request in requests("npy", accepted_inputs())]
        self._bodies = itertools.cycle(bodies)

    async def run(self, count: int) -> dict[str, float]:
        """Microseconds per request, and resident memory at the end."""
        begin = time.perf_counter()
        for _ in range(count):
            await self._one(next(self._bodies))
        return {"us": (time.perf_counter() - begin) / count * 1e6, "mb": _resident_mb()}

    async def _one(self, body: bytes) -> None:
        statuses: list[int] = []
        headers = [(b"content-type", b"application/x-npy"), (b"content-length", b"%d" % len(body))]
        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            statuses.append(message.get("status", 0))

        await self._door(scope, receive, send)
        if statuses[0] != 200:
            raise RuntimeError(f"the door answered with {statuses[0]}")


class Devices:
    """Many devices, or bare streams, in one process; each asks again when it has its answer."""

    def __init__(self, config: Path, port: int) -> None:
        self._config, self._port = config, port
        self._image = accepted_inputs().images[:1]
        self._tiers: list[Any] = []
        self._bare: list[Any] = []
        self._ids = itertools.count()

    async def run(self, devices: int, seconds: float, bare: bool) -> dict[str, Any]:
        """Requests per second of so many devices, and the latency of one."""
        from benchmarks.floors.grpc_stream import BareClient

        asks: list[Callable[[], Awaitable[None]]]
        if bare:
            while len(self._bare) < devices:
                self._bare.append(BareClient(self._port))
            payload = self._image.tobytes()
            asks = [lambda each=each: each.run(payload, 1, 1) for each in self._bare[:devices]]
        else:
            while len(self._tiers) < devices:
                await self._connect()
            asks = [lambda each=each: self._ask(each) for each in self._tiers[:devices]]
        taken: list[int] = []
        begin = time.perf_counter() + 0.2
        end = begin + seconds

        async def device(ask: Callable[[], Awaitable[None]]) -> None:
            while True:
                sent = time.perf_counter_ns()
                await ask()
                if time.perf_counter() > end:
                    return
                if time.perf_counter() > begin:
                    taken.append(time.perf_counter_ns() - sent)

        await asyncio.gather(*map(device, asks))
        taken.sort()
        return {"rate": len(taken) / seconds, "p50_us": percentile(taken, 0.5) / 1e3}

    async def _connect(self) -> None:
        server = _compose(self._config, "device")
        if server._pool is not None:
            await server._pool.start()
        self._tiers.append(server.tier)
        until = time.monotonic() + _GIVE_UP_S
        while not server.tier.forwarder.upstream.up():
            if time.monotonic() > until:
                raise RuntimeError("the edge did not answer")
            await asyncio.sleep(0.01)

    async def _ask(self, tier: Any) -> None:
        from common.types import Request, Rows

        answers: list[Any] = []
        request = Request(
            request_id=f"bench-{next(self._ids)}",
            rows=Rows(ids=(0,), tensors={"image": np.ascontiguousarray(self._image)}),
            bundle=tier.bundle.digest,
            operating_point="default",
        )
        await tier.answer(request, answers.extend)
        if answers[0].degraded is not None or answers[0].tier != "edge":
            raise RuntimeError(f"a row was not answered by the edge: {answers[0]}")


async def _serve(worker: Any) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await worker.run(**json.loads(line))), flush=True)
    os._exit(0)  # hundreds of streams need no farewell


async def _main(kind: str, config: str, *rest: str) -> None:
    await _serve(Soak(Path(config)) if kind == "soak" else Devices(Path(config), int(rest[0])))


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
