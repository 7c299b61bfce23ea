"""Small networks for tests, written as ONNX by hand so that no test of the run wing needs torch.

`skip` has four stages and three exits: a tensor skips over two cuts, and stage 1 has no exit.

    x -> [0: h0, s, logits0] -> [1: h1] -> [2: h2, logits1] -> [3: logits2]
                     s -------------^ passes ---^ read
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from common.bundle import Bundle, write_manifest
from common.criteria import CRITERIA, Outputs

WIDTH, CLASSES = 6, 5


def _weights(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = {"w0": (WIDTH, WIDTH), "w1": (WIDTH, WIDTH), "w2": (WIDTH, WIDTH), "a0": (WIDTH, CLASSES)}
    shape |= {"a1": (WIDTH, CLASSES), "a2": (WIDTH, CLASSES)}
    spread = {"a0": 2.0, "a1": 0.25}  # so that every exit keeps some rows and passes some on
    return {name: rng.normal(0, spread.get(name, 1.0), size).astype(np.float32) for name, size in shape.items()}


@dataclass(frozen=True)
class Skip:
    """The skip network in numpy: the reference that tiers must agree with."""

    weights: dict[str, np.ndarray]

    def logits(self, x_BD: np.ndarray) -> list[np.ndarray]:
        """The logits of all three exits, uncut."""
        w = self.weights
        h0, s = np.maximum(x_BD @ w["w0"], 0), x_BD * 2
        h1 = np.maximum(h0 @ w["w1"], 0)
        h2 = np.maximum((h1 + s) @ w["w2"], 0)
        return [h0 @ w["a0"], h2 @ w["a1"], h2 @ w["a2"]]

    def decide(self, x_BD: np.ndarray, criterion: str, thresholds: tuple[float, ...]) -> list[tuple[int, int]]:
        """(label, exit) per row."""
        logits = self.logits(x_BD)
        result: list[tuple[int, int]] = []
        for row in range(len(x_BD)):
            for exit, threshold in enumerate(thresholds):
                z = logits[exit][row : row + 1]
                said = Outputs.of(z, gate_B=z.max(axis=1))
                accept, _ = CRITERIA[criterion].decide(said, {}, np.array([threshold]))
                if accept[0] or exit == len(thresholds) - 1:
                    result.append((int(z.argmax()), exit))
                    break
        return result


def _model(nodes: list[Any], reads: dict[str, int], writes: dict[str, int], weights: dict[str, np.ndarray]) -> bytes:
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "stage",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", size]) for n, size in reads.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", size]) for n, size in writes.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


def skip_models(weights: dict[str, np.ndarray], *, gates: bool = False) -> list[bytes]:
    """The four ONNX stages; the early exits' gates are their largest logits."""
    node = helper.make_node
    weights = weights | {"two": np.float32(2.0)}
    stage0 = [
        node("MatMul", ["x", "w0"], ["z0"]),
        node("Relu", ["z0"], ["h0"]),
        node("Mul", ["x", "two"], ["s"]),
        node("MatMul", ["h0", "a0"], ["logits0"]),
    ]
    stage1 = [node("MatMul", ["h0", "w1"], ["z1"]), node("Relu", ["z1"], ["h1"])]
    stage2 = [
        node("Add", ["h1", "s"], ["m"]),
        node("MatMul", ["m", "w2"], ["z2"]),
        node("Relu", ["z2"], ["h2"]),
        node("MatMul", ["h2", "a1"], ["logits1"]),
    ]
    stage3 = [node("MatMul", ["h2", "a2"], ["logits2"])]
    written0, written2 = {"h0": WIDTH, "s": WIDTH, "logits0": CLASSES}, {"h2": WIDTH, "logits1": CLASSES}
    if gates:
        stage0.append(node("ReduceMax", ["logits0"], ["gate0"], axes=[1]))
        stage2.append(node("ReduceMax", ["logits1"], ["gate1"], axes=[1]))
        written0["gate0"] = written2["gate1"] = 1
    return [
        _model(stage0, {"x": WIDTH}, written0, weights),
        _model(stage1, {"h0": WIDTH}, {"h1": WIDTH}, weights),
        _model(stage2, {"h1": WIDTH, "s": WIDTH}, written2, weights),
        _model(stage3, {"h2": WIDTH}, {"logits2": CLASSES}, weights),
    ]


def skip_manifest(models: list[bytes], codec: str = "raw", compression: str = "none") -> dict[str, Any]:
    """The manifest of the skip network as a JSON document."""
    wide = {"dtype": "float32", "shape": [WIDTH]}
    scores = {"dtype": "float32", "shape": [CLASSES]}
    reads = [["x"], ["h0"], ["h1", "s"], ["h2"]]
    writes = [["h0", "s", "logits0"], ["h1"], ["h2", "logits1"], ["logits2"]]
    coding = {"codec": codec, "compression": compression}
    return {
        "format_version": 1,
        "name": "skip",
        "input": {"tensors": ["x"]},
        "classes": [f"class {i}" for i in range(CLASSES)],
        "tensors": {name: wide for name in ("x", "h0", "s", "h1", "h2")}
        | {name: scores for name in ("logits0", "logits1", "logits2")},
        "stages": [
            {
                "file": f"stage{k}.onnx",
                "sha256": hashlib.sha256(model).hexdigest(),
                "reads": reads[k],
                "writes": writes[k],
                "exit": (0, None, 1, 2)[k],
            }
            for k, model in enumerate(models)
        ],
        "cuts": [
            {"tensors": [{"name": "h0", **coding}, {"name": "s", **coding}]},
            {"tensors": [{"name": "h1", **coding}, {"name": "s", **coding}]},
            {"tensors": [{"name": "h2", **coding}]},
        ],
        "exits": [{"stage": stage, "logits": f"logits{k}"} for k, stage in enumerate((0, 2, 3))],
        "operating_points": {
            "default": {"criterion": "max-probability", "thresholds": [0.9, 0.8, 0.0]},
            "entropy": {"criterion": "entropy", "thresholds": [0.2, 0.3, 1.0]},
            "full": {"criterion": "max-probability", "thresholds": [None, None, 0.0]},
        },
    }


def write_skip(
    root: Path,
    *,
    seed: int = 0,
    codec: str = "raw",
    compression: str = "none",
    points: dict[str, Any] | None = None,
    combine: Sequence[tuple[Sequence[float], Sequence[float]]] = (),
) -> tuple[Bundle, Skip]:
    """Write the skip network as a bundle; returns it with its reference.

    Args:
        root: where.
        seed: of the weights.
        codec: of every cut.
        compression: of every cut.
        points: more operating points; with one of criterion `gate` and no fitted gates the stages write gates.
        combine: weights and biases of the exits' combinations.
    """
    root.mkdir(parents=True, exist_ok=True)
    weights = _weights(seed)
    gates = any(point["criterion"] == "gate" and "gates" not in point for point in (points or {}).values())
    models = skip_models(weights, gates=gates)
    for k, model in enumerate(models):
        (root / f"stage{k}.onnx").write_bytes(model)
    document = skip_manifest(models, codec, compression)
    document["operating_points"] |= points or {}
    for leave, (weights_K, bias_C) in zip(document["exits"], combine, strict=False):
        leave["combine"] = {"weights": list(weights_K), "bias": list(bias_C)}
    for number, stage in ((0, 0), (1, 2)) if gates else ():
        document["tensors"][f"gate{number}"] = {"dtype": "float32", "shape": [1]}
        document["stages"][stage]["writes"].append(f"gate{number}")
        document["exits"][number]["gate"] = f"gate{number}"
    write_manifest(root, document)
    return Bundle(root), Skip(weights)


def edit_manifest(root: Path, **changes: Any) -> None:
    """Change top-level keys of a bundle's manifest without any check."""
    document = json.loads((root / "manifest.json").read_text()) | changes
    (root / "manifest.json").write_text(json.dumps(document))
