"""Cost as work grows: many devices on one edge, many rows in a request (many requests: benchmarks/soak.py).

Devices: one edge with 1 to 256 streams, each with one request in flight, against as many bare streams of the same
payload. Rows: array files of 1 to 256 rows over REST, against the bare floor,
client and server on one core.
"""

from __future__ import annotations

from benchmarks.children import Child, free_port, python, wait_for_port
from benchmarks.contenders import CONTENDERS
from benchmarks.paths import BUILT
from benchmarks.places import PLACES
from benchmarks.results import Document, Recorder
from benchmarks.tables import number, table, times
from benchmarks.tiers import Tiers

DEVICES = (1, 8, 64, 256)
ROWS = (1, 4, 16, 64, 256)


def run(*, quick: bool) -> Document:
    """Measure and save."""
    rounds, seconds = (2, 0.5) if quick else (6, 0.8)
    recorder = Recorder("scale", rounds=rounds, seconds_per_cell=seconds)
    _rows(recorder, rounds, seconds)
    memory = _devices(recorder, rounds, seconds)
    return recorder.save(keep=not quick, edge_mb=memory, ratios=_ratios(recorder))


def _rows(recorder: Recorder, rounds: int, seconds: float) -> None:
    load = python("benchmarks.http_load", piped=True)
    tiers = Tiers("rows", {"device": 1, "edge": "rest"})
    port = free_port()
    floor = next(each for each in CONTENDERS if each.name == "floor").start(port)
    try:
        wait_for_port(floor, port)
        tiers.start("device")
        for child, cores in zip((load, floor, tiers.children["device"]), _together(), strict=True):
            child.pin(cores)
        for each in range(rounds):
            for rows in ROWS:
                for name, to in {"offramp": tiers.rest, "floor": port}.items():
                    numbers = load.ask(port=to, form=f"lenet:{rows}", clients=1, seconds=seconds / 2)
                    recorder.add(f"rows, {name}, {rows}", p50_us=numbers["p50_us"], rate=numbers["rate"] * rows)
            recorder.round_done(each, rounds)
    finally:
        load.stop()
        floor.stop()
        tiers.stop()


def _together() -> list[set[int]]:
    client, server = PLACES["one core"]()
    return [client, server, server]


def _devices(recorder: Recorder, rounds: int, seconds: float) -> dict[str, float]:
    tiers = Tiers("devices", {"device": 0, "edge": "rest"})
    port = free_port()
    bare = python("benchmarks.floors.grpc_stream", str(port), log=BUILT / "grpc-stream.log")
    worker: Child | None = None
    memory = {}
    try:
        wait_for_port(bare, port)
        tiers.start("edge")
        arguments = ("benchmarks.scale_worker", "devices", str(tiers.config), str(port))
        worker = python(*arguments, piped=True, log=BUILT / "devices.log")
        for devices in DEVICES:
            worker.ask(devices=devices, seconds=0.2, bare=False)
            worker.ask(devices=devices, seconds=0.2, bare=True)
            for _ in range(rounds):
                for name, is_bare in (("offramp", False), ("bare", True)):
                    numbers = worker.ask(devices=devices, seconds=seconds, bare=is_bare)
                    recorder.add(f"devices, {name}, {devices}", **numbers)
            memory[str(devices)] = tiers.children["edge"].resident_mb()
            print(f"  scale: {devices} devices", flush=True)
    finally:
        if worker is not None:
            worker.stop()
        tiers.stop()
        bare.stop()
    return memory


def _ratios(recorder: Recorder) -> dict[str, dict[str, float]]:
    ratios = {}
    for devices in DEVICES:
        for each in ("rate", "p50_us"):
            of, to = (f"devices, {name}, {devices}" for name in ("offramp", "bare"))
            ratios[f"devices, {each}, {devices}"] = recorder.ratio(each, of, to)
    for rows in ROWS:
        ratios[f"rows, {rows}"] = recorder.ratio("p50_us", f"rows, offramp, {rows}", f"rows, floor, {rows}")
    return ratios


def tables(document: Document) -> str:
    """The page's tables."""
    medians, ratios = document["medians"], document["ratios"]
    devices = []
    for count in DEVICES:
        ours, bare = medians[f"devices, offramp, {count}"], medians[f"devices, bare, {count}"]
        row = [str(count), number(ours["rate"]["median"]), number(bare["rate"]["median"])]
        row += [times(ratios[f"devices, rate, {count}"]), number(ours["p50_us"]["median"])]
        devices.append([*row, number(document["edge_mb"][str(count)])])
    rows = []
    for count in ROWS:
        ours, floor = medians[f"rows, offramp, {count}"], medians[f"rows, floor, {count}"]
        row = [str(count), number(ours["p50_us"]["median"]), number(floor["p50_us"]["median"])]
        rows.append([*row, times(ratios[f"rows, {count}"]), number(ours["rate"]["median"])])
    return "\n\n".join(
        [
            "Devices on one edge, one request in flight each:",
            table(["devices", "requests/s", "bare streams /s", "ratio", "p50 us", "edge RSS MB"], devices),
            "Rows per request, one client:",
            table(["rows", "p50 us", "floor us", "ratio", "rows/s"], rows),
        ]
    )
