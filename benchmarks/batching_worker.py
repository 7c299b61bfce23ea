"""ResNet-20 in one process, without a door: the bare sessions on compacted batches, or a tier.

`python -m benchmarks.batching_worker ideal`, or `tier CONFIG` for the tier that `offramp serve` would run. Questions
are JSON lines: {"share", "seconds"} for the first (share null: the network as one stage), {"point", "callers", "rows",
"seconds", "warm"} for the second.
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

from benchmarks import resnet
from common.criteria import softmax

BATCH = 64  # as a tier's limits.run_rows


class Ideal:
    """The three sessions, and nothing between them but the exit's decision and the compaction; or the whole network."""

    def __init__(self) -> None:
        self._whole = resnet.session(str(resnet.whole() / "stage0.onnx"))
        self._root = resnet.chain()
        self._sessions = [resnet.session(str(self._root / f"stage{k}.onnx")) for k in range(3)]
        self._rows = resnet.pool()

    def run(self, share: int | None, seconds: float) -> dict[str, float]:
        """Rows per second; without a share those of the network as one stage."""
        thresholds = None if share is None else resnet.thresholds(self._root, share)
        done = 0
        begin = now = time.perf_counter()
        for at in itertools.cycle(range(0, len(self._rows), BATCH)):
            rows = self._rows[at : at + BATCH]
            if thresholds is None:
                self._whole.run(["logits0"], {"image": rows})
            else:
                self._batch(rows, thresholds)
            done += BATCH
            now = time.perf_counter()
            if now - begin >= seconds:
                break
        return {"rate": done / (now - begin)}

    def _batch(self, rows: np.ndarray, thresholds: list[float | None]) -> None:
        for k, (session, threshold) in enumerate(zip(self._sessions, thresholds, strict=True)):
            names = [f"cut{k}", f"logits{k}"] if k < 2 else ["logits2"]
            *cut, logits = session.run(names, {"image" if k == 0 else f"cut{k - 1}": rows})
            best = softmax(logits, 1.0).max(axis=1)
            if k == 2 or not cut:
                return
            rows = cut[0] if threshold is None else cut[0][best < threshold]
            if not len(rows):
                return


class InProcess:
    """A tier with all stages; callers hand it requests as a door would."""

    def __init__(self, config: Path) -> None:
        from offramp.roles import compose
        from offramp.system import load_system

        self._server = compose(load_system(config), "device")
        self._rows = resnet.pool()
        self._ids = itertools.count()

    async def open(self) -> None:
        """Start it, in an interpreter that is set as a tier's."""
        from common.serving.interpreter import settle

        await self._server.start()
        settle()

    async def run(self, point: str, callers: int, rows: int, seconds: float, warm: float) -> dict[str, float]:
        """Rows per second of so many callers, each with one request of so many rows at a time."""
        done = 0
        begin = time.perf_counter() + warm
        end = begin + seconds

        async def caller(number: int) -> None:
            nonlocal done
            at = number * rows
            while time.perf_counter() < end:
                await self._one(point, self._rows[at : at + rows])
                at = (at + callers * rows) % (len(self._rows) - rows + 1)
                done += rows if begin < time.perf_counter() <= end else 0

        await asyncio.gather(*(caller(number) for number in range(callers)))
        return {"rate": done / seconds}

    async def _one(self, point: str, images: np.ndarray) -> None:
        from common.types import Request, Rows

        answers: list[Any] = []
        request = Request(
            request_id=f"bench-{next(self._ids)}",
            rows=Rows(ids=tuple(range(len(images))), tensors={"image": images}),
            bundle=self._server.tier.bundle.digest,
            operating_point=point,
        )
        await self._server.tier.answer(request, answers.extend)
        if len(answers) != len(images):
            raise RuntimeError(f"{len(answers)} answers to {len(images)} rows")

    async def close(self) -> None:
        """Stop it."""
        await self._server.stop()


async def _serve_tier(config: Path) -> None:
    tier = InProcess(config)
    await tier.open()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await tier.run(**json.loads(line))), flush=True)
    await tier.close()


def _serve_ideal() -> None:
    ideal = Ideal()
    for line in sys.stdin:
        print(json.dumps(ideal.run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "ideal":
        _serve_ideal()
    else:
        uvloop.run(_serve_tier(Path(sys.argv[2])))
