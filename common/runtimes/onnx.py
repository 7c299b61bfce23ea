"""Stages on onnxruntime, the default runtime."""

from __future__ import annotations

import os

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, at the import below: a tier reports to nobody
import onnxruntime

from common.bundle import Bundle
from common.errors import BundleError
from common.manifest import Stage
from common.types import Array, Tensors


class OnnxStage:
    """One stage as an onnxruntime session.

    Args:
        model: the verified bytes of the ONNX file.
        stage: what the manifest says about it.
        threads: threads inside one call; 1 unless measured otherwise.

    Raises:
        BundleError: when onnxruntime cannot load it, or its inputs and outputs differ from the manifest.
    """

    runtime = "onnxruntime"
    precision = "float32"

    def __init__(self, model: bytes, stage: Stage, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a family of its own without a common base
            raise BundleError(f"{stage.file} cannot be loaded by onnxruntime: {error}") from None
        for kind, found, wanted in (
            ("inputs", self._session.get_inputs(), stage.reads),
            ("outputs", self._session.get_outputs(), stage.writes),
        ):
            names = {value.name for value in found}
            if names != set(wanted):
                raise BundleError(f"{stage.file} has {kind} {sorted(names)}. The manifest names {sorted(wanted)}.")
        self._reads = stage.reads
        self._writes = list(stage.writes)

    @classmethod
    def load(cls, bundle: Bundle, stage: int, threads: int) -> OnnxStage:
        """Verify and load a stage of a bundle."""
        return cls(bundle.stage_bytes(stage), bundle.manifest.stages[stage], threads)

    def run(self, tensors: Tensors) -> Tensors:
        """Run the stage on a batch."""
        feed: dict[str, Array] = {name: np.ascontiguousarray(tensors[name]) for name in self._reads}
        return dict(zip(self._writes, self._session.run(self._writes, feed), strict=True))
