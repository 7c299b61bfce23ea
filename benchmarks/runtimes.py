"""`python -m benchmarks.runtimes [--quick]`: the same stages on every runtime that is here, one thread.

All stages of a network run one after the other, for one row and for many; the runtimes take turns in every round.
Beside the times: how far the last exit's logits lie from onnxruntime's, and how many of its labels are the same.
ResNet-20 has random weights here: its times count, its labels say little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import resnet
from benchmarks.paths import BUNDLE, IMAGES
from benchmarks.results import Document, Recorder
from benchmarks.tables import number, table, times
from common.bundle import Bundle
from common.errors import ConfigError
from common.runtimes import RUNTIMES, StageRunner, runtime_named
from common.types import Tensors

SIZES = (1, 8, 32)
FLOOR = "onnxruntime"


def networks() -> dict[str, tuple[Path, np.ndarray]]:
    """Bundle and rows per network."""
    digits = np.stack([np.asarray(Image.open(path))[None] for path in sorted(IMAGES.glob("*.png"))])
    return {"mnist-lenet": (BUNDLE, digits), "resnet20": (resnet.chain(), resnet.pool())}


def chain(runners: list[StageRunner], rows: Tensors) -> Tensors:
    """All stages, every exit computed, none taken."""
    live = dict(rows)
    for runner in runners:
        live |= runner.run(live)
    return live


def run(*, quick: bool) -> Document:
    """Measure and save."""
    rounds, repeats = (3, 5) if quick else (15, 30)
    recorder = Recorder("runtimes", rounds=rounds, runs_per_round=repeats, threads=1)
    loaded: dict[str, dict[str, list[StageRunner]]] = {}
    facts: dict[str, dict[str, float]] = {}
    for network, (root, rows) in networks().items():
        loaded[network] = _load(Bundle(root))
        facts |= _compare(network, Bundle(root), loaded[network], rows)
    for each in range(rounds):
        for network, (root, rows) in networks().items():
            name = Bundle(root).manifest.inputs[0]
            for size in SIZES:
                for runtime, runners in loaded[network].items():
                    cell = f"{network}, {size} rows, {runtime}"
                    recorder.add(cell, us=_time(runners, {name: rows[:size]}, repeats))
        recorder.round_done(each, rounds)
    ratios = {
        cell: recorder.ratio("us", f"{cell.rsplit(', ', 1)[0]}, {FLOOR}", cell)
        for cell in recorder.cells
        if not cell.endswith(f", {FLOOR}")
    }
    return recorder.save(keep=not quick, facts=facts, speedup=ratios)


def _load(bundle: Bundle) -> dict[str, list[StageRunner]]:
    found: dict[str, list[StageRunner]] = {}
    for runtime in RUNTIMES:
        try:
            load = runtime_named(runtime)
        except ConfigError as error:
            print(f"  without {runtime}: {error}")
            continue
        found[runtime] = [load(bundle, stage, 1) for stage in range(len(bundle.manifest.stages))]
    return found


def _compare(
    network: str, bundle: Bundle, loaded: Mapping[str, list[StageRunner]], rows: np.ndarray
) -> dict[str, dict[str, float]]:
    name, last = bundle.manifest.inputs[0], bundle.manifest.exits[-1].logits
    logits = {runtime: chain(runners, {name: rows})[last] for runtime, runners in loaded.items()}
    scale = max(1.0, float(np.abs(logits[FLOOR]).max()))
    return {
        f"{network}, {runtime}": {
            "difference": float(np.abs(found - logits[FLOOR]).max()) / scale,
            "agreement": float((found.argmax(1) == logits[FLOOR].argmax(1)).mean()),
        }
        for runtime, found in logits.items()
    }


def _time(runners: list[StageRunner], rows: Tensors, repeats: int) -> float:
    """Median microseconds of one pass."""
    chain(runners, rows)
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter_ns()
        chain(runners, rows)
        taken.append(time.perf_counter_ns() - begin)
    return float(np.median(taken)) / 1e3


def tables(document: Document) -> str:
    """The page's table."""
    rows = []
    for cell, fact in document["facts"].items():
        network, runtime = cell.split(", ")
        row = [network, runtime]
        for size in SIZES:
            of = f"{network}, {size} rows, {runtime}"
            text = f"{number(document['medians'][of]['us']['median'])} us"
            row.append(text if runtime == FLOOR else f"{text}, {times(document['speedup'][of])}")
        rows.append([*row, f"{fact['difference']:.1e}", f"{fact['agreement']:.1%}"])
    head = [
        "network",
        "runtime",
        *(f"{size} row{'s' * (size > 1)}" for size in SIZES),
        "logits differ by",
        "same label",
    ]
    return table(head, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtimes", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few short rounds, to see that all works; saves nothing")
    print(tables(run(quick=parser.parse_args().quick)))
