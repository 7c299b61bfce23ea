"""The network without its early exits: the same stages one after another, no early head computed."""

from __future__ import annotations

import numpy as np
import onnxruntime

from calibration.served import Served
from common.types import Array, Tensors


class Whole:
    """Stages chained on onnxruntime, computing only what the last exit needs.

    Args:
        served: whose bundle is run; the stages are loaded a second time.
    """

    def __init__(self, served: Served) -> None:
        manifest = served.manifest
        self._options = onnxruntime.RunOptions()
        self._options.only_execute_path_to_fetches = True
        self._stages = []
        for number, stage in enumerate(manifest.stages):
            crossing = {how.name for how in manifest.cuts[number]} if number < len(manifest.cuts) else set()
            wanted = [name for name in stage.writes if name in crossing] or [manifest.exits[-1].logits]
            self._stages.append((_session(served.bundle.stage_bytes(number)), stage.reads, wanted))

    def run(self, live: Tensors) -> Array:
        """Logits [B, C] of the last exit."""
        for session, reads, wanted in self._stages:
            feed = {name: np.ascontiguousarray(live[name]) for name in reads}
            live = {**live, **dict(zip(wanted, session.run(wanted, feed, self._options), strict=True))}
        result: Array = live[self._stages[-1][2][0]]
        return result


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
