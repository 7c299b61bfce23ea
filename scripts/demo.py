"""`make demo`: device, edge and cloud as three processes on loopback, asked about real test images.

`make demo BUNDLE=bundles/fashion-mnist-resnet` takes another shipped network; without a bundle it is B-LeNet.
Every figure that is printed was counted or timed in this run. The exit status is 1 when a check fails.
"""

import asyncio
import importlib.util
import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvloop
from rich.console import Console
from rich.table import Table

from common.bundle import Bundle
from common.errors import OfframpError
from offramp.http_client import ClientError, HttpClient
from offramp.load_inputs import LoadInput, load_inputs
from offramp.load_report import percentile
from offramp.tier_process import TierProcess

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "deploy" / "tiers.yaml"
BUNDLE = ROOT / "bundles" / "mnist-lenet"
IMAGES = ROOT / "examples"  # in a folder with the name of the data set
TIERS = ("device", "edge", "cloud")
RAW_BYTES = 28 * 28  # one pixel, one byte
START_S = 30.0
RESUME_S = 10.0

console = Console(highlight=False, soft_wrap=True)


class CheckFailed(Exception):
    """What was promised did not happen."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image, its answer and the time that its request took."""

    tier: str
    right: bool
    degraded: str | None
    ms: float


class System:
    """The three tiers of deploy/tiers.yaml on free ports of loopback."""

    def __init__(self, bundle: Path) -> None:
        doors = ["DEVICE_REST", "EDGE_GRPC", "CLOUD_GRPC", *(f"{tier.upper()}_OPS" for tier in TIERS)]
        for door, port in zip(doors, free_ports(len(doors)), strict=True):
            os.environ[f"OFFRAMP_{door}"] = f"127.0.0.1:{port}"
        os.environ["OFFRAMP_BUNDLE"] = str(bundle)
        self.url = f"http://{os.environ['OFFRAMP_DEVICE_REST']}"
        self.said: list[str] = []
        self.tiers = {name: TierProcess(CONFIG, name, self._hear) for name in TIERS}

    async def start(self, name: str) -> None:
        await self.tiers[name].start()
        if not await self.tiers[name].ready(START_S):
            raise CheckFailed(f"{name} did not start; the tiers said:\n" + "\n".join(self.said[-20:]))

    async def stop(self) -> None:
        await asyncio.gather(*(tier.stop(15.0) for tier in self.tiers.values()))

    def forwarded_bytes(self, name: str) -> int:
        """Bytes that a tier has sent upstream, framing included, from its /metrics."""
        text = httpx.get(f"http://{os.environ[f'OFFRAMP_{name.upper()}_OPS']}/metrics", trust_env=False).text
        lines = (line.rpartition(" ") for line in text.splitlines())
        return int(sum(float(value) for head, _, value in lines if head.startswith("offramp_forwarded_bytes_total")))

    def _hear(self, tier: str, line: str) -> None:
        self.said.append(f"{tier}: {line}")


def free_ports(count: int) -> list[int]:
    """Ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@asynccontextmanager
async def running(bundle: Path) -> AsyncIterator[System]:
    """All tiers, upstream first; none is left when the block ends, however it ends."""
    system = System(bundle)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        for name in reversed(TIERS):
            await system.start(name)
        yield system
    finally:
        await system.stop()


async def ask(system: System, images: Iterable[LoadInput], point: str) -> list[Row]:
    """Send images one after the other, as a camera would, and take what is answered."""
    client = HttpClient(system.url, f"/predict?operating_point={point}")
    rows = []
    try:
        for image in images:
            start = time.perf_counter()
            reply = await client.send(client.request(image.body.content_type, image.body.data))
            ms = (time.perf_counter() - start) * 1e3
            if reply.status != 200:
                raise CheckFailed(f"the device answered with HTTP status {reply.status}: {reply.body.decode()}")
            (answer,) = json.loads(reply.body)["answers"]
            right = answer["label"] == image.label
            rows.append(Row(tier=answer["tier"], right=right, degraded=answer["degraded"], ms=ms))
    finally:
        client.close()
    return rows


def check(holds: bool, sentence: str) -> None:
    if not holds:
        raise CheckFailed(sentence)
    console.print(f"  [green]ok[/] {sentence}")


def check_forwarded(rows: list[Row]) -> None:
    """At operating point full the cloud answers; a stall of the machine may degrade a few, never more."""
    degraded = sum(row.degraded is not None for row in rows)
    by_cloud = sum(row.tier == "cloud" for row in rows)
    check(by_cloud + degraded == len(rows), f"operating point full: the cloud answered {by_cloud}, degraded {degraded}")
    check(degraded <= 0.05 * len(rows), "at most 5 % of them were degraded")


def accuracy(rows: list[Row]) -> float:
    return sum(row.right for row in rows) / len(rows)


def summary(rows: list[Row], of: int) -> list[str]:
    """Answers, share, accuracy, p50 and p95 of some rows."""
    if not rows:
        return ["0", "0.0%", "-", "-", "-"]
    ordered = sorted(row.ms for row in rows)
    p50, p95 = percentile(ordered, 0.5), percentile(ordered, 0.95)
    return [str(len(rows)), f"{len(rows) / of:.1%}", f"{accuracy(rows):.1%}", f"{p50:.2f}", f"{p95:.2f}"]


def table(title: str, columns: tuple[str, ...], rows: list[list[str]]) -> None:
    shown = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        shown.add_column(column, justify="right" if index else "left")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


COLUMNS = ("answered by", "answers", "share", "accuracy", "p50 ms", "p95 ms")


async def who_answers(system: System, images: list[LoadInput], png_bytes: int) -> None:
    """Two operating points, and what each sends upstream."""
    marks, found = [], {}
    for point in ("default", "full"):
        before = [system.forwarded_bytes(name) for name in TIERS[:2]]
        found[point] = await ask(system, images, point)
        marks.append([system.forwarded_bytes(name) - b for name, b in zip(TIERS[:2], before, strict=True)])
    usual, full = found["default"], found["full"]
    rows = [[name, *summary([row for row in usual if row.tier == name], len(usual))] for name in TIERS]
    rows.append(["all together", *summary(usual, len(usual))])
    rows.append(["the whole network*", *summary(full, len(full))])
    table(f"{len(images)} images, one after the other, operating point default", COLUMNS, rows)
    console.print("* operating point full: no early exit, the cloud answers everything\n")

    count = len(images)
    sent = [
        [f"device to edge, {point}", f"{mark[0]:,}", f"{mark[0] / count:.1f}"]
        for point, mark in zip(("default", "full"), marks, strict=True)
    ]
    sent += [
        [f"edge to cloud, {point}", f"{mark[1]:,}", f"{mark[1] / count:.1f}"]
        for point, mark in zip(("default", "full"), marks, strict=True)
    ]
    sent.append(["all to the cloud as raw pixels, bare", f"{RAW_BYTES * count:,}", f"{RAW_BYTES:.1f}"])
    sent.append(["all to the cloud as PNG files, bare", f"{png_bytes:,}", f"{png_bytes / count:.1f}"])
    table("Bytes sent upstream", ("link", "bytes", "per image"), sent)
    console.print("Forwarded bytes count gRPC and HTTP/2 framing; pixels and PNG are payload alone.\n")

    check(len(usual) == len(full) == count, f"all {count} images were answered at both operating points")
    check_forwarded(full)
    gap = 100 * (accuracy(full) - accuracy(usual))
    check(gap <= 1.0, f"early exits cost {gap:.2f} points of accuracy on these images, at most 1")


async def edge_fails(system: System, images: list[LoadInput]) -> None:
    """The edge is killed, and comes back."""
    system.tiers["edge"].signal(signal.SIGKILL)
    await system.tiers["edge"].wait()
    rows = await ask(system, images, "full")
    reasons = Counter(row.degraded for row in rows)
    title = f"{len(images)} images at operating point full after kill -9 of the edge"
    table(title, COLUMNS, [[name, *summary([row for row in rows if row.tier == name], len(rows))] for name in TIERS])
    check(len(rows) == len(images), f"all {len(images)} images were answered without the edge")
    check({row.tier for row in rows} == {"device"}, "the device answered them from its own exit")
    said = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
    check(None not in reasons, f"every answer says that it is degraded: {said}")

    await system.start("edge")
    ready = time.perf_counter()
    while (await ask(system, images[:1], "full"))[0].degraded:
        if time.perf_counter() - ready > RESUME_S:
            raise CheckFailed(f"nothing was forwarded within {RESUME_S:g} s of the edge being ready again")
        await asyncio.sleep(0.02)
    seconds = time.perf_counter() - ready
    check(True, f"forwarding went on {seconds:.2f} s after the restarted edge was ready")
    check_forwarded(await ask(system, images, "full"))


async def demo(root: Path) -> None:
    bundle = Bundle(root)
    data = bundle.manifest.provenance.get("recipe", {}).get("data", {}).get("dataset", "")
    if not data or not (IMAGES / data).is_dir():
        raise CheckFailed(f"{bundle.root} has no images in {IMAGES}. Take a bundle that is shipped.")
    images = load_inputs(IMAGES / data, "png")
    png_bytes = sum(len(image.body.data) for image in images)
    torch = "is" if importlib.util.find_spec("torch") else "is not"
    console.print(f"Starting device, edge and cloud from bundles/{bundle.root.name} (torch {torch} installed here)\n")
    async with running(bundle.root) as system:
        for point in ("default", "full"):
            await ask(system, images[:16], point)  # warm-up, not counted
        await who_answers(system, images, png_bytes)
        console.print()
        await edge_fails(system, images)
    console.print("\nEverything is stopped. `make up` starts the same tiers and keeps them.")


def main() -> int:
    try:
        uvloop.run(demo(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else BUNDLE))
    except (CheckFailed, OfframpError, ClientError, httpx.HTTPError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("demo: interrupted; everything is stopped.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
