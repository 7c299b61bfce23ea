"""Small networks as bundles, written as ONNX by hand: they cost next to nothing, so that only the system shows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.paths import BUILT
from common.bundle import write_manifest

CLASSES = 10


def onnx_model(
    nodes: list[Any], reads: dict[str, Any], writes: dict[str, Any], weights: dict[str, np.ndarray]
) -> bytes:
    """A stage; `reads` and `writes` map names to (type, row shape)."""
    values = [
        [helper.make_tensor_value_info(name, kind, ["batch", *shape]) for name, (kind, shape) in side.items()]
        for side in (reads, writes)
    ]
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "stage", *values, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def hop_bundle(kilobytes: int) -> Path:
    """Two stages around one activation of so many kilobytes per row; the first exit never accepts.

    Stage 0 repeats its input of 16 numbers, stage 1 takes the first ten as logits.
    """
    width = kilobytes * 256
    node = helper.make_node
    first_ten = {"from": np.array([0]), "to": np.array([CLASSES]), "axis": np.array([1])}
    stages = [
        onnx_model(
            [
                node("Tile", ["x", "times"], ["activation"]),
                node("Slice", ["x", "from", "to", "axis"], ["logits0"]),
            ],
            {"x": (TensorProto.FLOAT, [16])},
            {"activation": (TensorProto.FLOAT, [width]), "logits0": (TensorProto.FLOAT, [CLASSES])},
            {"times": np.array([1, width // 16]), **first_ten},
        ),
        onnx_model(
            [node("Slice", ["activation", "from", "to", "axis"], ["logits1"])],
            {"activation": (TensorProto.FLOAT, [width])},
            {"logits1": (TensorProto.FLOAT, [CLASSES])},
            first_ten,
        ),
    ]
    names = [(["x"], ["activation", "logits0"]), (["activation"], ["logits1"])]
    document = manifest(
        f"hop-{kilobytes}k",
        stages,
        names,
        {"x": [16], "activation": [width]},
        cuts=[["activation"]],
        thresholds={"default": [None, 0.0]},
    )
    return write_bundle(f"hop-{kilobytes}k", stages, document)


def manifest(
    name: str,
    stages: list[bytes],
    names: list[tuple[list[str], list[str]]],
    tensors: dict[str, list[int]],
    *,
    cuts: list[list[str]],
    thresholds: dict[str, list[float | None]],
    dtypes: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The manifest of a chain in which every stage has an exit whose logits are `logits<stage>`."""
    count = len(stages)
    shapes = tensors | {f"logits{k}": [CLASSES] for k in range(count)}
    full = {"criterion": "max-probability", "thresholds": [None] * (count - 1) + [0.0]}
    points = {point: {"criterion": "max-probability", "thresholds": list(t)} for point, t in thresholds.items()}
    return {
        "format_version": 1,
        "name": name,
        "input": {"tensors": names[0][0]},
        "classes": [str(k) for k in range(CLASSES)],
        "tensors": {
            each: {"dtype": (dtypes or {}).get(each, "float32"), "shape": shape} for each, shape in shapes.items()
        },
        "stages": [
            {
                "file": f"stage{k}.onnx",
                "sha256": hashlib.sha256(model).hexdigest(),
                "reads": names[k][0],
                "writes": names[k][1],
                "exit": k,
            }
            for k, model in enumerate(stages)
        ],
        "cuts": [{"tensors": [{"name": each, "codec": "raw"} for each in cut]} for cut in cuts],
        "exits": [{"stage": k, "logits": f"logits{k}"} for k in range(count)],
        "operating_points": {**points, "full": full},
    }


def write_bundle(name: str, stages: list[bytes], document: dict[str, Any]) -> Path:
    """Write a bundle under build/bench."""
    root = BUILT / name
    root.mkdir(parents=True, exist_ok=True)
    for number, model in enumerate(stages):
        (root / f"stage{number}.onnx").write_bytes(model)
    write_manifest(root, document)
    return root
