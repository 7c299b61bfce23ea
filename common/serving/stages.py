"""Loading a tier's stages: verify, load, warm up, and check what each writes."""

from __future__ import annotations

import logging
import time

import numpy as np

from common.bundle import Bundle
from common.errors import BundleError
from common.manifest import Manifest
from common.runtimes import AUTO, StageRunner, runtime_named
from common.runtimes.auto import fastest
from common.runtimes.runner import Loader, zeros
from common.serving.batcher import RunCost
from common.types import Tensors

log = logging.getLogger(__name__)

_WARM_UP_RUNS = 3


def load_stages(
    bundle: Bundle, *, start: int, stop: int, runtime: str, threads: int, precision: str = "float32"
) -> dict[int, StageRunner]:
    """Load the stages [start, stop), and those before `start` whose files are here too.

    A tier runs from any stage that it holds, so that a plan can change while requests are in flight.

    Args:
        bundle: the network.
        start: first stage of the tier's own range.
        stop: first stage that it does not run.
        runtime: a name of `common.runtimes`, or "auto" for the one that is fastest here.
        threads: inside one run.
        precision: of the operating point's configuration; "auto" keeps to it.

    Raises:
        BundleError: when a file of the tier's own range is missing or damaged.
        ConfigError: when the runtime is not here.
    """
    if runtime == AUTO:
        runtime = fastest(bundle, range(start, stop), threads, precision=precision)
    load = runtime_named(runtime)
    own = {stage: load(bundle, stage, threads) for stage in range(start, stop)}
    return {**_others(bundle, min(start, stop), load, threads), **own}


def _others(bundle: Bundle, before: int, load: Loader, threads: int) -> dict[int, StageRunner]:
    """The stages before the tier's own range, as far as their files are here and sound."""
    held: dict[int, StageRunner] = {}
    for stage in filter(bundle.holds, range(before)):
        try:
            held[stage] = load(bundle, stage, threads)
        except BundleError as error:
            log.warning("stage %d is not held: %s", stage, error)
    return held


def warm_up(manifest: Manifest, runners: dict[int, StageRunner], costs: dict[int, RunCost]) -> None:
    """Run every stage on zeros, for one row and for two, and check what comes out against the manifest.

    Raises:
        BundleError: when a stage does not run on what the manifest says, writes other shapes or types than it
            should, or logits that are not finite.
    """
    for stage, runner in runners.items():
        for rows in (1, 2):
            try:
                tensors = zeros(manifest, stage, rows)
                outputs = runner.run(tensors)
            except Exception as error:  # every runtime has exceptions of its own
                raise BundleError(
                    f"{manifest.stages[stage].file} does not run on what the manifest says of its inputs: "
                    f"{' '.join(str(error).split())[:300]}"
                ) from None
            _check(manifest, stage, rows, outputs)
            for _ in range(_WARM_UP_RUNS):
                started = time.perf_counter()
                runner.run(tensors)
                costs[stage].learn(rows, time.perf_counter() - started)


def _check(manifest: Manifest, stage: int, rows: int, outputs: Tensors) -> None:
    entry = manifest.stages[stage]
    for name in entry.writes:
        spec, found = manifest.tensors[name], outputs[name]
        fits = found.ndim == len(spec.shape) + 1 and all(
            isinstance(want, str) or want == have for want, have in zip(spec.shape, found.shape[1:], strict=False)
        )
        if found.dtype.name != spec.dtype or len(found) != rows or not fits:
            raise BundleError(
                f"{entry.file} writes {name!r} as {found.dtype.name} {list(found.shape)}. The manifest says "
                f"{spec.dtype} {[rows, *spec.shape]}."
            )
    if entry.exit is None:
        return
    leave = manifest.exits[entry.exit]
    for what, written in (("logits", leave.logits), ("a gate", leave.gate)):
        if written is not None and not np.isfinite(outputs[written]).all():
            are = "that are" if what == "logits" else "that is"
            raise BundleError(f"{entry.file} gives {what} {are} not finite for an input of zeros.")
