"""Three tiers behind emulated links: device alone, compressed input to the cloud, static splits, offramp.

Every tier is `offramp serve` in a network namespace of its own. The device has a core that is held to a share of its
speed; edge, cloud, the links and the load share the other one. Each cell of the map is measured alone and kept under
build/, so that a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.fog.cells import LOADS, Cell, Times, cells, measure
from benchmarks.fog.images import images_of
from benchmarks.fog.layouts import FULL, Field, field
from benchmarks.fog.namespaces import missing
from benchmarks.fog.place import Place
from benchmarks.paths import BUILT, ROOT, shown
from benchmarks.results import CannotRun, Document, Recorder
from common.bundle import Bundle

BUNDLES = {
    "fog": ROOT / "bundles" / "fashion-mnist-resnet",
    "mobilenet": ROOT / "runs" / "mobilenet-tiers",  # from `python -m results.tiers`
}
POINTS = ("guaranteed", "default")  # the first that the bundle has: as close to the whole network as it gets
TIMES = Times(try_s=1.0, again_s=3.0, requests=400, rounds=2, least_s=4.0)
_QUICK = Times(try_s=0.5, again_s=0.5, requests=20, rounds=2, least_s=0.5)
FIRST = (10, 1, 1000, 100)  # the order in which rates are measured, the most telling first
_A_CELL_S = 45.0  # about
_KEPT = BUILT / "fog"


def run(name: str, *, quick: bool, until: float | None = None) -> Document:
    """Measure one of `BUNDLES` and save; begin no cell that would end after `until` (of time.monotonic()).

    Raises:
        CannotRun: when this machine cannot hold the links, or the bundle is not there.
    """
    if reason := missing():
        raise CannotRun(reason)
    bundle = BUNDLES[name]
    if not bundle.is_dir():
        raise CannotRun(f"{shown(bundle)} is not there. docs/performance.md says how it is made.")
    served = Bundle(bundle)
    points = served.manifest.operating_points
    point = next(name for name in POINTS if name in points)
    ways = field(len(served.manifest.stages), inputs=_inputs_are_small(bundle), point=point)
    times = _QUICK if quick else TIMES
    recorder = Recorder(
        name, rounds=times.rounds, requests_per_cell=times.requests, bundle=served.name, loads=LOADS, point=point,
        measured={name: dict(points[name].measured or {}) for name in (point, FULL)},
    )  # fmt: skip
    found: dict[str, Any] = {}
    wanted = cells(quick)
    for share in dict.fromkeys(cell.share for cell in wanted):
        group = [cell for cell in wanted if cell.share == share]
        kept = {} if quick else _kept(group, served.digest)
        found |= kept
        left = sorted((cell for cell in group if cell.name not in kept), key=lambda cell: FIRST.index(cell.mbit))
        if left and (until is None or time.monotonic() < until):
            _measure(found, recorder, bundle, ways, left, times, served.digest, until)
    circumstances = {key: [cell[key] for cell in found.values()] for key in ("load_average", "seconds")}
    return recorder.save(
        keep=not quick, cells=found, left=len(wanted) - len(found),
        load_average=circumstances["load_average"], seconds=sum(circumstances["seconds"]),
    )  # fmt: skip


def _inputs_are_small(bundle: Path) -> bool:
    """Whether the compressed input takes fewer bytes than some cut's coded activation, as the evaluation measured."""
    path = bundle / "evaluation.json"
    cuts = json.loads(path.read_text()).get("forwarded_bytes", []) if path.exists() else []
    sizes = [(cut["input_zlib"], cut["coded"]) for cut in cuts if cut["rows"]]
    return not sizes or any(zipped < coded for zipped, coded in sizes)


def _measure(
    found: dict[str, Any],
    recorder: Recorder,
    bundle: Path,
    ways: Field,
    left: list[Cell],
    times: Times,
    digest: str,
    until: float | None,
) -> None:
    """Measure cells of one share, until time runs out."""
    place = Place(bundle, ways.layouts, images_of(bundle), left[0].share)
    try:
        capacity = _capacity(place, ways, left[0].share, digest)
        path = _KEPT / f"{_settings(digest)} {left[0].share:g} core alone.json"
        alone = json.loads(path.read_text()) if path.exists() and times is TIMES else {}
        took = _A_CELL_S
        for cell in left:
            if until is not None and time.monotonic() + took * 1.1 > until:
                return
            begin = time.monotonic()
            found[cell.name] = measure(place, ways, cell, capacity, times, alone)
            took = time.monotonic() - begin
            if times is TIMES:
                path.write_text(json.dumps(alone))
                _kept_at(cell, digest).write_text(json.dumps(found[cell.name]))
            gains = ", ".join(f"{name} {each['gain']:.2f}x" for name, each in found[cell.name]["gains"].items())
            print(f"  {cell.name}: {found[cell.name]['ways']['offramp']}: {gains} ({took:.0f} s)", flush=True)
            recorder.round_done(len(found) - 1, len(cells(False)))
    finally:
        place.stop()


def _capacity(place: Place, ways: Field, share: float, digest: str) -> float:
    """Requests per second that the device alone can answer, from the processor time that each takes it."""
    path = _KEPT / f"{digest[-12:]} capacity.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    if "ms" not in known:
        layout = ways.device.layout
        place.ask(ways.device, rate=20, seconds=1.0, warm=0.5, seed=0)
        before = place.processor_ms(layout, "device")
        lists = place.ask(ways.device, rate=30, seconds=4.0, warm=0.0, seed=0)
        known["ms"] = (place.processor_ms(layout, "device") - before) / lists["sent"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known))
    print(
        f"  the device spends {known['ms']:.2f} ms of processor time on a request, operating point {FULL}", flush=True
    )
    return share / known["ms"] * 1e3


def _settings(digest: str) -> str:
    return hashlib.sha256(repr((digest, TIMES, LOADS, POINTS)).encode()).hexdigest()[:12]


def _kept_at(cell: Cell, digest: str) -> Path:
    return _KEPT / f"{_settings(digest)} {cell.name}.json"


def _kept(group: list[Cell], digest: str) -> dict[str, Any]:
    paths = {cell.name: _kept_at(cell, digest) for cell in group}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def main() -> None:
    """`python -m benchmarks.fog.map`: measure for a while, to go on later."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=None, help="begin no cell that would end later")
    parser.add_argument("name", nargs="?", default="fog", choices=BUNDLES, help="of the benchmark (default: fog)")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    until = None if chosen.minutes is None else time.monotonic() + chosen.minutes * 60
    try:
        document = run(chosen.name, quick=chosen.quick, until=until)
    except CannotRun as reason:
        raise SystemExit(str(reason)) from None
    print(f"{document['left']} cells are left to measure")


if __name__ == "__main__":
    main()
