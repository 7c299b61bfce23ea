"""Stages on onnxruntime, the default runtime, and on its execution providers for accelerators."""

from __future__ import annotations

import os

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, at the import below: a tier reports to nobody
import onnxruntime

from common.bundle import Bundle
from common.errors import BundleError, ConfigError
from common.manifest import Stage
from common.runtimes.runner import check_names
from common.types import Array, Tensors

CPU = "CPUExecutionProvider"
_REMOTE = ("AzureExecutionProvider",)  # runs nothing on this machine
_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}  # float32 means float32


def providers() -> dict[str, str]:
    """Execution providers that this machine's onnxruntime was built with: short name -> its own name."""
    found = (name for name in onnxruntime.get_available_providers() if name not in _REMOTE)
    return {name.removesuffix("ExecutionProvider").lower(): name for name in found}


class OnnxStage:
    """One stage as an onnxruntime session.

    Args:
        model: the verified bytes of the ONNX file.
        stage: what the manifest says about it.
        threads: threads inside one call; 1 unless measured otherwise.
        provider: the execution provider that runs it; what it cannot run, the CPU does.

    Raises:
        BundleError: when onnxruntime cannot load it, or its inputs and outputs differ from the manifest.
    """

    precision = "float32"

    def __init__(self, model: bytes, stage: Stage, threads: int = 1, provider: str = CPU) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        wanted = [(name, _OPTIONS.get(name, {})) for name in dict.fromkeys((provider, CPU))]
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=wanted)
        except Exception as error:  # onnxruntime raises a family of its own without a common base
            raise BundleError(f"{stage.file} cannot be loaded by onnxruntime: {error}") from None
        if provider not in self._session.get_providers():  # it falls back to the CPU without an error
            raise ConfigError(
                f"onnxruntime's {provider} does not start on this machine: no device or no driver for it."
            )
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        check_names(stage, [value.name for value in inputs], [value.name for value in outputs])
        short = provider.removesuffix("ExecutionProvider").lower()
        self.runtime = "onnxruntime" if provider == CPU else f"onnxruntime:{short}"
        self._reads = stage.reads
        self._writes = list(stage.writes)

    @classmethod
    def load(cls, bundle: Bundle, stage: int, threads: int, provider: str = CPU) -> OnnxStage:
        """Verify and load a stage of a bundle."""
        return cls(bundle.stage_bytes(stage), bundle.manifest.stages[stage], threads, provider)

    def run(self, tensors: Tensors) -> Tensors:
        """Run the stage on a batch."""
        feed: dict[str, Array] = {name: np.ascontiguousarray(tensors[name]) for name in self._reads}
        return dict(zip(self._writes, self._session.run(self._writes, feed), strict=True))
