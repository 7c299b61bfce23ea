"""The seam to whatever runs a stage: one small protocol, and what every implementation checks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

import numpy as np

from common.bundle import Bundle
from common.errors import BundleError
from common.manifest import Manifest, Stage
from common.types import Tensors


class StageRunner(Protocol):
    """One stage, loaded and ready. One call at a time."""

    runtime: str  # "onnxruntime", "onnxruntime:cuda", "openvino"
    precision: str  # of its arithmetic: "float32", "bfloat16"

    def run(self, tensors: Tensors) -> Tensors:
        """Run the stage on a batch: what it reads goes in, what it writes comes out, [B, ...] each."""
        ...


Loader = Callable[[Bundle, int, int], StageRunner]  # bundle, stage, threads


def check_names(stage: Stage, inputs: Collection[str], outputs: Collection[str]) -> None:
    """Raise BundleError when a stage's file does not read and write what the manifest says."""
    for kind, found, wanted in (("inputs", inputs, stage.reads), ("outputs", outputs, stage.writes)):
        if set(found) != set(wanted):
            raise BundleError(f"{stage.file} has {kind} {sorted(found)}. The manifest names {sorted(wanted)}.")


def zeros(manifest: Manifest, stage: int, rows: int, names: Iterable[str] | None = None) -> Tensors:
    """A batch of zeros for what a stage reads, or for the tensors named; symbolic sizes take their smallest bucket.

    Whole numbers of a symbolic size (token ids, masks) are 1 where rows are filled up with 0: no row may consist of
    filling alone. Those that a stage wrote may be masks of either meaning, such as `mask == 0`: the first is 1, the
    others are 0, so that there is a real token whichever it is.
    """
    found: Tensors = {}
    for name in manifest.stages[stage].reads if names is None else names:
        spec = manifest.tensors[name]
        sizes = [min(manifest.buckets.get(s, (1,))) if isinstance(s, str) else s for s in spec.shape]
        tokens = bool(spec.symbols) and np.dtype(spec.dtype).kind in "iub"
        found[name] = np.full((rows, *sizes), int(tokens and spec.pad == 0), spec.dtype)
        if tokens and name not in manifest.inputs:
            found[name][..., 1:] = 0
    return found
