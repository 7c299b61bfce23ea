"""A whole network as one ONNX graph: what somebody would serve who does not split it.

The stages of a bundle are joined, and what only early exits need is left out. Joining needs the package `onnx`, of
the extra `build`; running a graph does not.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from common.bundle import Bundle
from common.errors import BundleError, ConfigError
from common.types import Array, Tensors


class OneGraph:
    """A session of onnxruntime on one thread, from input tensors to logits.

    Args:
        model: bytes of an ONNX file with one output.
        name: for errors.

    Raises:
        BundleError: when onnxruntime cannot load it.
    """

    def __init__(self, model: bytes, name: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a family of its own without a common base
            raise BundleError(f"{name} cannot be loaded by onnxruntime: {error}") from None
        self._reads = [value.name for value in self._session.get_inputs()]

    def run(self, tensors: Tensors) -> Array:
        """Logits [B, C] of a batch."""
        feed = {name: np.ascontiguousarray(tensors[name]) for name in self._reads}
        (logits_BC,) = self._session.run(None, feed)
        result: Array = logits_BC
        return result


def require_onnx(what: str) -> None:
    """Raise ConfigError where the package `onnx` is missing."""
    if importlib.util.find_spec("onnx") is None:
        raise ConfigError(f"{what} needs the package onnx: install offramp with its extra `build`.")


def join_stages(bundle: Bundle) -> Any:
    """The stages of a bundle as one `onnx.ModelProto`, without early exits and without any coding in between.

    Raises:
        ConfigError: when onnx is not installed.
        BundleError: when a stage is damaged.
    """
    require_onnx("Joining the stages into one graph")
    import onnx
    from onnx.compose import add_prefix

    manifest = bundle.manifest
    joined = onnx.ModelProto()
    opsets: dict[str, int] = {}
    for number in range(len(manifest.stages)):
        model = onnx.load_model_from_string(bundle.stage_bytes(number))
        stage = add_prefix(model, f"stage{number}/", rename_inputs=False, rename_outputs=False)
        graph = stage.graph
        joined.ir_version = max(joined.ir_version, stage.ir_version)
        for opset in stage.opset_import:
            opsets[opset.domain] = max(opsets.get(opset.domain, 0), opset.version)
        joined.functions.extend(stage.functions)
        joined.graph.node.extend(graph.node)
        joined.graph.initializer.extend(graph.initializer)
        joined.graph.input.extend(value for value in graph.input if value.name in manifest.inputs)
        joined.graph.output.extend(value for value in graph.output if value.name == manifest.exits[-1].logits)
    joined.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items())
    joined.graph.name = manifest.name
    _unique_inputs(joined.graph)
    _drop_unread(joined.graph)
    onnx.checker.check_model(joined)
    return joined


def _unique_inputs(graph: Any) -> None:
    """A later stage may read an input of the bundle again."""
    inputs = {value.name: value for value in graph.input}
    graph.ClearField("input")
    graph.input.extend(inputs.values())


def _drop_unread(graph: Any) -> None:
    """Keep only what the outputs follow from."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(_read_by(node))
    weights = [weight for weight in graph.initializer if weight.name in wanted]
    graph.ClearField("node")
    graph.node.extend(reversed(kept))
    graph.ClearField("initializer")
    graph.initializer.extend(weights)


def _read_by(node: Any) -> Iterator[str]:
    """What a node reads, the bodies of its loops and branches among it."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for inside in inner.node:
                yield from _read_by(inside)


def saved(model: Any, folder: Path, name: str) -> Path:
    """Write a model where the quantiser can find it."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path
