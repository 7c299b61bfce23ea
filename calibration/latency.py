"""Time per row, one row at a time, of every operating point and of the network without its exits.

Only computing is measured, on one thread: stages and decisions, no wire. Operating points take turns every few
rows, so that a busy machine disturbs them alike while each keeps its caches warm.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from calibration.datasets import Examples
from calibration.served import Served
from calibration.whole import Whole
from common.criteria import CRITERIA, Outputs, softmax_row
from common.manifest import OperatingPoint
from common.types import Tensors

_WARM_UP = 20
_BLOCK = 50
WHOLE = "without_exits"


def measure_latency(served: Served, examples: Examples, rows: int) -> dict[str, Any]:
    """Microseconds per row: mean, p50, p95, p99 of every operating point, and of the stages without exits.

    Args:
        served: its stages run one after another in this process.
        examples: the split; its first `rows` rows are measured.
        rows: how many.

    Returns:
        name -> statistics; `speedup` is the mean time without exits over the mean time at the operating point.
    """
    inputs = served.inputs(examples)
    one_by_one = [{name: array[i : i + 1] for name, array in inputs.items()} for i in range(min(rows, len(examples)))]
    runs: dict[str, Callable[[Tensors], object]] = {
        name: _runner(served, point) for name, point in served.manifest.operating_points.items()
    }
    runs[WHOLE] = Whole(served).run
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for row in one_by_one[:_WARM_UP]:
            run(row)
    for at in range(0, len(one_by_one), _BLOCK):
        for name, run in runs.items():
            for row in one_by_one[at : at + _BLOCK]:
                start = time.perf_counter()
                run(row)
                taken[name].append(time.perf_counter() - start)
    whole = float(np.mean(taken[WHOLE]))
    return {name: _statistics(np.array(seconds), whole) for name, seconds in taken.items()}


def _statistics(seconds: np.ndarray[Any, np.dtype[np.float64]], whole: float) -> dict[str, float]:
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99))
    return {
        "mean_us": round(float(seconds.mean()) * 1e6, 2),
        "p50_us": round(float(p50) * 1e6, 2),
        "p95_us": round(float(p95) * 1e6, 2),
        "p99_us": round(float(p99) * 1e6, 2),
        "speedup": round(whole / float(seconds.mean()), 3),
    }


def _runner(served: Served, point: OperatingPoint) -> Callable[[Tensors], object]:
    """Run one row through the stages until an exit accepts it, deciding as a tier does for a single row."""
    criterion = CRITERIA[point.criterion]
    if criterion.keeps_state:
        return _batch_runner(served, point)
    exits = [None if stage.exit is None else served.manifest.exits[stage.exit] for stage in served.manifest.stages]
    last = len(exits) - 1

    def run(live: Tensors) -> object:
        taken = 0
        for number, leave in enumerate(exits):
            live = {**live, **served.stages[number].run(live)}
            if leave is None:
                continue
            label, probs = softmax_row(live[leave.logits][0].tolist(), leave.temperature)
            if number == last or criterion.accepts(probs, point.thresholds[taken]):
                return label
            taken += 1
        return None

    return run


def _batch_runner(served: Served, point: OperatingPoint) -> Callable[[Tensors], object]:
    """As `_runner`, for a criterion that needs more than class probabilities: a batch of one row."""
    criterion = CRITERIA[point.criterion]
    manifest = served.manifest
    limits = [np.array([threshold]) for threshold in point.thresholds]

    def run(live: Tensors) -> object:
        state: Tensors = {}
        said = None
        for number, stage in enumerate(manifest.stages):
            live = {**live, **served.stages[number].run(live)}
            if stage.exit is None:
                continue
            leave = manifest.exits[stage.exit]
            gate_B = None if leave.gate is None else live[leave.gate].reshape(-1)
            said = Outputs.of(live[leave.logits], leave.temperature, gate_B)
            accepted_B, state = criterion.decide(said, state, limits[stage.exit])
            if accepted_B[0]:
                break
        return said

    return run
