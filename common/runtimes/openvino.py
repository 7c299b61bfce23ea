"""Stages on OpenVINO, an optional runtime: often the quickest on x86, in float32 or in bfloat16.

bfloat16 is for CPUs with instructions for it (AVX512-BF16, AMX). Its results differ from float32 by about one part
in a thousand, so thresholds must have been calibrated through it. The package is imported when a stage is loaded.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from typing import Any

import numpy as np

from common.bundle import Bundle
from common.errors import BundleError, ConfigError
from common.manifest import Stage
from common.runtimes.runner import check_names
from common.types import Tensors

HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenvinoStage:
    """One stage as two OpenVINO infer requests: for any number of rows, and for one row alone.

    A free first axis costs 20 to 25 us per run, which for one row and a small stage is up to a quarter of the time.

    Args:
        model: the verified bytes of the ONNX file.
        stage: what the manifest says about it.
        threads: threads inside one call; 1 unless measured otherwise.
        precision: "float32" or "bfloat16".

    Raises:
        BundleError: when OpenVINO cannot load it, or its inputs and outputs differ from the manifest.
        ConfigError: when OpenVINO is not installed, or the CPU lacks the precision.
    """

    runtime = "openvino"

    def __init__(self, model: bytes, stage: Stage, threads: int = 1, precision: str = "float32") -> None:
        require(precision)
        self.precision = precision
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # two tiers on one machine would pin the same core
        }
        try:
            network = _core().read_model(model)
            inputs, outputs = ([port.any_name for port in ports] for ports in (network.inputs, network.outputs))
            check_names(stage, inputs, outputs)
            self._any = _Request(_core().compile_model(network, "CPU", settings))
            network.reshape({port.any_name: _one_row(port) for port in network.inputs})
            self._one = _Request(_core().compile_model(network, "CPU", settings))
        except RuntimeError as error:
            raise BundleError(f"{stage.file} cannot be loaded by openvino: {str(error).strip()[:300]}") from None
        self._reads = stage.reads

    @classmethod
    def load(cls, bundle: Bundle, stage: int, threads: int, precision: str = "float32") -> OpenvinoStage:
        """Verify and load a stage of a bundle."""
        return cls(bundle.stage_bytes(stage), bundle.manifest.stages[stage], threads, precision)

    def run(self, tensors: Tensors) -> Tensors:
        """Run the stage on a batch."""
        feed = {name: np.ascontiguousarray(tensors[name]) for name in self._reads}
        return (self._one if len(feed[self._reads[0]]) == 1 else self._any).run(feed)


class _Request:
    """A compiled network, ready to run."""

    def __init__(self, compiled: Any) -> None:
        self._outputs = {port.any_name: port for port in compiled.outputs}
        self._request = compiled.create_infer_request()

    def run(self, feed: Tensors) -> Tensors:
        results = self._request.infer(feed, share_inputs=True)  # outputs are copies: the next run reuses their memory
        return {name: results[port] for name, port in self._outputs.items()}


def _one_row(port: Any) -> Any:
    shape = port.partial_shape
    shape[0] = 1
    return shape


def installed() -> bool:
    """Whether the package is there; does not import it."""
    return importlib.util.find_spec("openvino") is not None


def supports(precision: str) -> bool:
    """Whether this machine's OpenVINO computes in a precision at full speed."""
    capabilities: list[str] = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return precision == "float32" or "BF16" in capabilities


def require(precision: str) -> None:
    """Raise ConfigError, in one sentence, unless OpenVINO can run in a precision here."""
    if not installed():
        raise ConfigError("OpenVINO is not installed: install offramp with its extra 'openvino', or use onnxruntime.")
    if not supports(precision):
        raise ConfigError(f"This CPU has no instructions for {precision}: use openvino, which computes in float32.")


@cache
def _core() -> Any:
    """OpenVINO's core. Its import would report to its makers; a tier talks to its neighbours only."""
    package = "openvino_telemetry"
    before = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]  # an import of it fails, and a stub takes its place
    try:
        import openvino
    finally:
        del sys.modules[package]
        if before is not None:
            sys.modules[package] = before
    return openvino.Core()
