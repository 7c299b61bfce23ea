"""A tiny data set in the files of the MNIST family, and a bundle for it that needs no training.

Images are 8 x 8 templates with noise. The bundle's weights are solved in closed form: stage 0 sees a few random
features, stage 1 more of them, so that the second exit is the better one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common.bundle import write_manifest

SIDE, CLASSES = 8, 10
_TEMPLATES = np.random.default_rng(1).integers(0, 256, (CLASSES, 1, SIDE, SIDE))


def make_rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 1, 8, 8] uint8, some harder than others, and labels [N]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    noise = rng.normal(0, 1, (count, 1, SIDE, SIDE)) * rng.uniform(40, 160, (count, 1, 1, 1))
    return np.clip(_TEMPLATES[labels] + noise, 0, 255).astype(np.uint8), labels.astype(np.uint8)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write bytes in the idx format, gzipped when the name says so."""
    raw = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)


def write_split(folder: Path, stem: str, count: int, seed: int, suffix: str = ".gz") -> None:
    """Write the images and labels of one split; `stem` is "train" or "t10k"."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = make_rows(count, seed)
    write_idx(folder / f"{stem}-images-idx3-ubyte{suffix}", images[:, 0])
    write_idx(folder / f"{stem}-labels-idx1-ubyte{suffix}", labels)


def write_data(folder: Path, *, train: int = 1200, test: int = 300) -> Path:
    """Write both splits."""
    write_split(folder, "train", train, seed=2)
    write_split(folder, "t10k", test, seed=3)
    return folder


def recipe(**changes: Any) -> dict[str, Any]:
    """Sections of a recipe for this data, as a bundle carries them."""
    sections: dict[str, Any] = {
        "name": "tiny",
        "data": {"dataset": "mnist", "seed": 3, "validation": 100, "tune": 300, "calibration": 400},
        "cuts": {"codec": "u8", "compression": "zstd", "loss": 0.01},
        "calibration": {"criterion": "max-probability", "target_drop": 0.03, "confidence": 0.9, "candidates": 20},
    }
    for name, change in changes.items():
        sections[name] = {**sections[name], **change}
    return sections


@dataclass(frozen=True)
class _Solved:
    features0: np.ndarray
    features1: np.ndarray
    head0: np.ndarray
    head1: np.ndarray


def _solve() -> _Solved:
    images, labels = make_rows(2000, seed=4)
    x = images.reshape(len(images), -1).astype(np.float32) / 255
    rng = np.random.default_rng(5)
    features0 = (rng.normal(0, 1, (SIDE * SIDE, 32)) / 4).astype(np.float32)
    features1 = (rng.normal(0, 1, (32, 96)) / 4).astype(np.float32)
    h0 = np.maximum(x @ features0, 0)
    h1 = np.maximum(h0 @ features1, 0)
    wanted = np.eye(CLASSES)[labels] * 8
    few = np.concatenate([h0[:, :14], np.zeros_like(h0[:, 14:])], axis=1)  # a weak first exit
    head0 = np.linalg.lstsq(few, wanted, rcond=None)[0]
    head1 = np.linalg.lstsq(h1, wanted, rcond=None)[0]
    return _Solved(features0, features1, head0.astype(np.float32), head1.astype(np.float32))


def write_tiny(root: Path, *, damage: bool = False, gate: bool = False, **changes: Any) -> Path:
    """Write the bundle, uncalibrated.

    Args:
        root: where.
        damage: the last exit answers NaN.
        gate: the first exit has a learned gate, whose logit grows with its largest logit.
        changes: go into its recipe.
    """
    root.mkdir(parents=True, exist_ok=True)
    w = _solve()
    node = helper.make_node
    scale = np.float32(np.nan if damage else 1.0)
    models = [
        _model(
            [
                node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
                node("Mul", ["f", "unit"], ["u"]),
                node("Flatten", ["u"], ["x"]),
                node("MatMul", ["x", "features0"], ["z"]),
                node("Relu", ["z"], ["h0"]),
                node("MatMul", ["h0", "head0"], ["logits0"]),
                *([node("ReduceMax", ["logits0"], ["gate0"], axes=[1])] if gate else []),
            ],
            ("image", TensorProto.UINT8, [1, SIDE, SIDE]),
            {"h0": 32, "logits0": CLASSES, **({"gate0": 1} if gate else {})},
            {"unit": np.float32(1 / 255), "features0": w.features0, "head0": w.head0},
        ),
        _model(
            [
                node("MatMul", ["h0", "features1"], ["z"]),
                node("Relu", ["z"], ["h1"]),
                node("MatMul", ["h1", "head1"], ["m"]),
                node("Mul", ["m", "scale"], ["logits1"]),
            ],
            ("h0", TensorProto.FLOAT, [32]),
            {"logits1": CLASSES},
            {"features1": w.features1, "head1": w.head1, "scale": scale},
        ),
    ]
    for number, model in enumerate(models):
        (root / f"stage{number}.onnx").write_bytes(model)
    document = _manifest(models, recipe(**changes))
    if gate:
        document["tensors"]["gate0"] = {"dtype": "float32", "shape": [1]}
        document["stages"][0]["writes"].append("gate0")
        document["exits"][0]["gate"] = "gate0"
    write_manifest(root, document)
    return root


def write_convolving(root: Path) -> Path:
    """The tiny bundle with a convolution in front that changes nothing, so that it counts as a network of images."""
    write_tiny(root)
    model = onnx.load(root / "stage0.onnx")
    node = helper.make_node
    model.graph.node[1].output[0] = "before"
    model.graph.node.insert(2, node("Conv", ["before", "same"], ["u"], kernel_shape=[1, 1]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "same"))
    raw = model.SerializeToString()
    (root / "stage0.onnx").write_bytes(raw)
    document = json.loads((root / "manifest.json").read_text())
    document["stages"][0]["sha256"] = hashlib.sha256(raw).hexdigest()
    write_manifest(root, document)
    return root


def _model(nodes: list[Any], source: tuple[str, int, list[int]], writes: dict[str, int], weights: Any) -> bytes:
    graph = helper.make_graph(
        nodes,
        "stage",
        [helper.make_tensor_value_info(source[0], source[1], ["batch", *source[2]])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", size]) for n, size in writes.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def _manifest(models: list[bytes], sections: dict[str, Any]) -> dict[str, Any]:
    reads, writes = (["image"], ["h0"]), (["h0", "logits0"], ["logits1"])
    flops = (4_800, 8_100)
    full = {"criterion": "max-probability", "thresholds": [None, 0.0]}
    return {
        "format_version": 1,
        "name": "tiny",
        "input": {"tensors": ["image"]},
        "classes": [str(c) for c in range(CLASSES)],
        "tensors": {
            "image": {"dtype": "uint8", "shape": [1, SIDE, SIDE]},
            "h0": {"dtype": "float32", "shape": [32]},
            "logits0": {"dtype": "float32", "shape": [CLASSES]},
            "logits1": {"dtype": "float32", "shape": [CLASSES]},
        },
        "stages": [
            {
                "file": f"stage{k}.onnx",
                "sha256": hashlib.sha256(model).hexdigest(),
                "reads": reads[k],
                "writes": writes[k],
                "exit": k,
                "flops": flops[k],
            }
            for k, model in enumerate(models)
        ],
        "cuts": [{"tensors": [{"name": "h0", "codec": "u8", "compression": "zstd"}]}],
        "exits": [{"stage": k, "logits": f"logits{k}"} for k in range(2)],
        "operating_points": {"default": full, "full": full},
        "provenance": {"recipe": sections},
    }
