"""The fastest runtime for some stages on this machine: measured at start, for one row and for many.

A few runs of every candidate whose precision is allowed, taking turns so that other load disturbs all alike; what
counts is the least time of each. Precision is no matter of speed: thresholds hold for the one they were calibrated in.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

from common.bundle import Bundle
from common.errors import BundleError
from common.runtimes import Loader, StageRunner, candidates
from common.runtimes.runner import zeros
from common.types import Tensors

log = logging.getLogger(__name__)

SIZES = (1, 32)  # rows
ROUNDS = 10
BUDGET_S = 1.0  # for all runs together; loading is not counted
DEFAULT = "onnxruntime"


def fastest(
    bundle: Bundle,
    stages: Sequence[int],
    threads: int,
    *,
    precision: str = "float32",
    candidates: Callable[[str], Mapping[str, Loader]] = candidates,
    clock: Callable[[], float] = time.perf_counter,
) -> str:
    """The name of the candidate with the smallest product of its times for 1 and for 32 rows.

    Args:
        bundle: where the stages come from.
        stages: those that the tier runs; none: the default runtime.
        threads: inside one call.
        precision: what the operating point was calibrated in. Where nothing here has it, float32 is taken.
        candidates: the runtimes of a precision; one that is not here, or cannot load a stage, is left out.
        clock: seconds.
    """
    if not stages:
        return DEFAULT
    loaded = _load(bundle, stages, threads, candidates(precision))
    if not loaded:
        log.warning("runtime auto: nothing here computes in %s, and float32 is taken", precision)
        loaded = _load(bundle, stages, threads, candidates("float32"))
    if len(loaded) < 2:
        return next(iter(loaded), DEFAULT)
    until = clock() + BUDGET_S
    taken: dict[str, list[float]] = {name: [] for name in loaded}
    for rows in SIZES:
        batches = [zeros(bundle.manifest, stage, rows) for stage in stages]
        if rows > 1 and clock() + 2 * rows * sum(map(sum, taken.values())) > until:
            break  # two more rounds would take too long
        for name, seconds in _measure(loaded, batches, until, clock).items():
            taken[name].append(seconds)
    best = min(taken, key=lambda name: math.prod(taken[name]))
    for name, times in taken.items():
        shown = ", ".join(f"{rows} rows {seconds * 1e6:.0f} us" for rows, seconds in zip(SIZES, times, strict=False))
        log.info("runtime auto: %s: %s%s", name, shown, " (taken)" if name == best else "")
    return best


def _load(
    bundle: Bundle, stages: Sequence[int], threads: int, loaders: Mapping[str, Loader]
) -> dict[str, list[StageRunner]]:
    loaded: dict[str, list[StageRunner]] = {}
    for name, load in loaders.items():
        try:
            runners = [load(bundle, stage, threads) for stage in stages]
            for stage, runner in zip(stages, runners, strict=True):
                runner.run(zeros(bundle.manifest, stage, 1))
        except Exception as error:  # every runtime has exceptions of its own
            if name == DEFAULT and isinstance(error, BundleError):
                raise
            log.info("runtime auto: without %s: %s", name, error)
        else:
            loaded[name] = runners
    return loaded


def _measure(
    loaded: Mapping[str, Sequence[StageRunner]], batches: Sequence[Tensors], until: float, clock: Callable[[], float]
) -> dict[str, float]:
    """Least seconds of one pass over all stages, per candidate; the first round warms up."""
    least = dict.fromkeys(loaded, math.inf)
    for round in range(ROUNDS):
        if round > 1 and clock() > until:
            break
        for name, runners in loaded.items():
            started = clock()
            for runner, batch in zip(runners, batches, strict=True):
                runner.run(batch)
            if round:
                least[name] = min(least[name], clock() - started)
    return least
