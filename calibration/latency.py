"""Measured time: every operating point, the network without its exits, and baselines, all on the same rows.

Only computing is measured, on one thread: stages and decisions, no wire. Contenders take turns every few rows, so
that a busy machine disturbs them alike while each keeps its caches warm. A batch is decided as a tier decides it: the
rows that leave are taken out, the rest go on together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from calibration.datasets import Examples
from calibration.served import Served
from calibration.whole import Whole
from common.criteria import softmax_row
from common.manifest import OperatingPoint
from common.rule import Rule
from common.runtimes import configured
from common.types import Array, Tensors

WHOLE = "without_exits"
BATCH = 32
Run = Callable[[Tensors], object]  # answers a batch of rows
Fresh = Callable[[], Run]  # loads a network anew, so that its next request is the first

_WARM_UP = 20
_BLOCK = 50
_ROW_CLASSES = 64  # up to here a tier decides a single row in plain Python
_SECONDS = 120.0  # about what a measurement may take when nobody says how many rows


def contenders(served: Served) -> dict[str, Fresh]:
    """The operating points of a bundle, and its stages without early exits, by name."""

    def point(wanted: OperatingPoint) -> Fresh:
        return lambda: answering(Served(served.bundle, runtime=configured(served.configuration())), wanted)

    points = served.manifest.operating_points.items()
    return {**{name: point(wanted) for name, wanted in points}, WHOLE: lambda: Whole(served).run}


def measure_latency(
    runs: Mapping[str, Fresh], served: Served, examples: Examples, rows: int | None = None
) -> dict[str, Any]:
    """Microseconds per row of every contender.

    Args:
        runs: name -> contender; WHOLE among them.
        served: the bundle, whose inputs are taken.
        examples: the split.
        rows: how many of its rows, spread evenly; None takes all, or as many as about two minutes allow.

    Returns:
        name -> statistics, see `docs/evaluation.md`.
    """
    inputs = served.inputs(examples)

    def batches(numbers: Array, size: int) -> list[Tensors]:
        parts = (numbers[at : at + size] for at in range(0, len(numbers) - size + 1, size))
        return [{name: array[part] for name, array in inputs.items()} for part in parts]

    loaded: dict[str, Run] = {}
    first: dict[str, float] = {}
    (row,) = batches(np.arange(1), 1)
    for name, fresh in runs.items():
        loaded[name] = fresh()
        first[name] = _seconds(loaded[name], row)
    if rows is None:
        rows = _affordable(loaded, batches(np.arange(min(_WARM_UP, len(examples))), 1))
    numbers = np.unique(np.linspace(0, len(examples) - 1, min(rows, len(examples))).astype(int))
    single = _taking_turns(loaded, batches(numbers, 1), _BLOCK)
    many = _taking_turns(loaded, batches(numbers, BATCH), max(1, _BLOCK // BATCH))
    return {
        name: {
            **_statistics(single[name], single[WHOLE], 1),
            "rows": len(numbers),
            "first_us": round(first[name] * 1e6, 1),
            "batch32": _statistics(many[name], many[WHOLE], BATCH) if many[name] else None,
        }
        for name in loaded
    }


def answering(served: Served, point: OperatingPoint) -> Run:
    """Take a batch through the stages until every row has left, as a tier does.

    A single row of few classes is decided in plain Python, everything else in numpy.
    """
    rule = Rule.of(served.manifest, point)
    plain = rule.by_row and len(served.manifest.classes) <= _ROW_CLASSES
    return lambda live: (_row if plain and len(next(iter(live.values()))) == 1 else _rows)(served, rule, point, live)


def _row(served: Served, rule: Rule, point: OperatingPoint, live: Tensors) -> object:
    criterion, manifest = rule.criterion, served.manifest
    for number, stage in enumerate(manifest.stages):
        live = {**live, **served.stages[number].run(live)}
        if stage.exit is None:
            continue
        leave = manifest.exits[stage.exit]
        label, probs = softmax_row(live[leave.logits][0].tolist(), leave.temperature)
        if stage.exit == len(manifest.exits) - 1 or criterion.accepts(probs, point.thresholds[stage.exit]):
            return label
    return None


def _rows(served: Served, rule: Rule, point: OperatingPoint, live: Tensors) -> object:
    manifest = served.manifest
    rows_B = np.arange(len(next(iter(live.values()))))
    labels = np.empty(len(rows_B), np.int64)
    state: Tensors = {}
    for number, stage in enumerate(manifest.stages):
        live = {**live, **served.stages[number].run(live)}
        if stage.exit is None:
            continue
        leave = manifest.exits[stage.exit]
        gate_B = None if leave.gate is None else live[leave.gate].reshape(-1)
        thresholds_B = np.full(len(rows_B), point.thresholds[stage.exit])
        said, accepted_B, state = rule.decide(stage.exit, live[leave.logits], gate_B, state, thresholds_B)
        labels[rows_B] = said.labels_B
        if accepted_B.all():
            break
        if accepted_B.any():
            kept_B = ~accepted_B
            rows_B = rows_B[kept_B]
            live = {name: live[name][kept_B] for name in manifest.live(number + 1)}
            state = {name: array[kept_B] for name, array in state.items()}
    return labels


def _affordable(loaded: Mapping[str, Run], rows: Sequence[Tensors]) -> int:
    """How many rows all contenders get through in time, one by one and in batches."""
    start = time.perf_counter()
    for row in rows:
        for run in loaded.values():
            run(row)
    each = (time.perf_counter() - start) / len(rows)
    return max(1, math.floor(_SECONDS / (2.0 * each)))


def _taking_turns(loaded: Mapping[str, Run], batches: Sequence[Tensors], block: int) -> dict[str, list[float]]:
    """Seconds of every batch, by contender."""
    taken: dict[str, list[float]] = {name: [] for name in loaded}
    for run in loaded.values():
        for batch in batches[: max(1, _WARM_UP * block // _BLOCK)]:
            run(batch)
    for at in range(0, len(batches), block):
        for name, run in loaded.items():
            taken[name] += [_seconds(run, batch) for batch in batches[at : at + block]]
    return taken


def _seconds(run: Run, batch: Tensors) -> float:
    start = time.perf_counter()
    run(batch)
    return time.perf_counter() - start


def _statistics(seconds: Sequence[float], whole: Sequence[float], rows: int) -> dict[str, float]:
    """Per row; percentiles are those of requests, divided by their rows."""
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99))
    mean = float(np.mean(seconds))
    return {
        "mean_us": round(mean / rows * 1e6, 2),
        "p50_us": round(float(p50) / rows * 1e6, 2),
        "p95_us": round(float(p95) / rows * 1e6, 2),
        "p99_us": round(float(p99) / rows * 1e6, 2),
        "speedup": round(float(np.mean(whole)) / mean, 3),
    }
