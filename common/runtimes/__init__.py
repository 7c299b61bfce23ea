"""Runtimes: what runs a stage. The seam is one small protocol; onnxruntime is the default behind it.

A runtime reads and writes named tensors whose first axis is the row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from common.bundle import Bundle
from common.runtimes.onnx import OnnxStage
from common.types import Tensors


class StageRunner(Protocol):
    """One stage, loaded and ready."""

    runtime: str  # "onnxruntime"
    precision: str  # "float32"

    def run(self, tensors: Tensors) -> Tensors:
        """Run the stage on a batch: what it reads goes in, what it writes comes out, [B, ...] each."""
        ...


Loader = Callable[[Bundle, int, int], StageRunner]  # bundle, stage, threads

RUNTIMES: dict[str, Loader] = {"onnxruntime": OnnxStage.load}
