"""ResNet-20 for 32 x 32 images as a chain of three stages with an exit each, with random weights.

He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2: three groups of three blocks with 16,
32 and 64 channels; batch normalisation is folded into the convolutions. Its answers mean nothing, its costs are
those of the trained network. Operating point `leave<N>` makes N percent of the rows that reach an exit leave there:
its thresholds are quantiles of the confidences of POOL rows.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from benchmarks.networks import CLASSES, manifest, onnx_model, write_bundle
from benchmarks.paths import BUILT
from common.criteria import softmax

SHARES = (0, 30, 60, 90)
POOL = 512
_CHANNELS = (16, 32, 64)
_SIDES = (32, 16, 8)


def pool() -> np.ndarray:
    """Rows to send, [POOL, 3, 32, 32] uint8: random images of few large patches, so that rows differ."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (POOL, 3, 4, 4), np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, axis=2).repeat(8, axis=3))


def session(model: str | bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """A bare session as offramp would make it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def chain() -> Path:
    """The bundle with three stages and three exits; made once."""
    root = BUILT / "resnet20"
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    stamp = root / "recipe"
    if stamp.exists() and stamp.read_text() == recipe and (root / "manifest.json").exists():
        return root
    stages = [_stage(k) for k in range(3)]
    names = [([_reads(k)], [f"cut{k}", f"logits{k}"] if k < 2 else ["logits2"]) for k in range(3)]
    tensors = {"image": [3, 32, 32], **{f"cut{k}": [_CHANNELS[k], _SIDES[k], _SIDES[k]] for k in range(2)}}
    points = {f"leave{share}": list(_thresholds(stages, share)) for share in SHARES}
    document = manifest(
        "resnet20", stages, names, tensors, cuts=[["cut0"], ["cut1"]],
        thresholds={"default": points["leave60"], **points}, dtypes={"image": "uint8"},
    )  # fmt: skip
    write_bundle("resnet20", stages, document)
    stamp.write_text(recipe)
    return root


def whole() -> Path:
    """The same network as one stage without early exits."""
    stage = onnx_model(
        [node for k in range(3) for node in _nodes(k, early=False)],
        {"image": (TensorProto.UINT8, [3, 32, 32])},
        {"logits0": (TensorProto.FLOAT, [CLASSES])},
        {name: array for k in range(3) for name, array in _weights(k).items()},
    )
    document = manifest(
        "resnet20-whole", [stage], [(["image"], ["logits0"])], {"image": [3, 32, 32]}, cuts=[],
        thresholds={"default": [0.0]}, dtypes={"image": "uint8"},
    )  # fmt: skip
    return write_bundle("resnet20-whole", [stage], document)


def thresholds(root: Path, share: int) -> list[float | None]:
    """What the bundle says for a share of rows that leaves."""
    points = json.loads((root / "manifest.json").read_text())["operating_points"]
    found: list[float | None] = points[f"leave{share}"]["thresholds"]
    return found


def _reads(k: int) -> str:
    return "image" if k == 0 else f"cut{k - 1}"


def _stage(k: int) -> bytes:
    shape = [3, 32, 32] if k == 0 else [_CHANNELS[k - 1], _SIDES[k - 1], _SIDES[k - 1]]
    kind = TensorProto.UINT8 if k == 0 else TensorProto.FLOAT
    writes: dict[str, Any] = {f"logits{k}": (TensorProto.FLOAT, [CLASSES])}
    if k < 2:
        writes[f"cut{k}"] = (TensorProto.FLOAT, [_CHANNELS[k], _SIDES[k], _SIDES[k]])
    return onnx_model(_nodes(k, early=True), {_reads(k): (kind, shape)}, writes, _weights(k))


def _weights(k: int) -> dict[str, np.ndarray]:
    """He-initialised convolutions, the second of each block damped, and the exit's head."""
    rng = np.random.default_rng(k)
    weights = {"unit": np.float32(1 / 255)} if k == 0 else {}
    before, width = (3 if k == 0 else _CHANNELS[k - 1]), _CHANNELS[k]

    def conv(name: str, inputs: int, size: int, gain: float = 1.0) -> None:
        spread = gain * np.sqrt(2 / (inputs * size * size))
        weights[f"{name}w"] = rng.normal(0, spread, (width, inputs, size, size)).astype(np.float32)
        weights[f"{name}b"] = rng.normal(0, 0.05, width).astype(np.float32)

    if k == 0:
        conv("s0in", before, 3)
    for block in range(3):
        inputs = before if k and block == 0 else width
        conv(f"s{k}b{block}x", inputs, 3)
        conv(f"s{k}b{block}y", width, 3, gain=0.3)
        if inputs != width:
            conv(f"s{k}b{block}p", inputs, 1)
    weights[f"h{k}w"] = rng.normal(0, 2 / np.sqrt(width), (width, CLASSES)).astype(np.float32)
    weights[f"h{k}b"] = np.zeros(CLASSES, np.float32)
    return weights


def _nodes(k: int, *, early: bool) -> list[Any]:
    node = helper.make_node
    nodes: list[Any] = []

    def conv(name: str, source: str, target: str, size: int, stride: int = 1) -> None:
        nodes.append(
            node("Conv", [source, f"{name}w", f"{name}b"], [target], kernel_shape=[size, size],
                 strides=[stride, stride], pads=[size // 2] * 4)
        )  # fmt: skip

    at = _reads(k)
    if k == 0:
        nodes += [node("Cast", ["image"], ["wide"], to=TensorProto.FLOAT), node("Mul", ["wide", "unit"], ["scaled"])]
        conv("s0in", "scaled", "s0z", 3)
        nodes.append(node("Relu", ["s0z"], ["s0a"]))
        at = "s0a"
    for block in range(3):
        name, first = f"s{k}b{block}", bool(k) and block == 0
        conv(f"{name}x", at, f"{name}1", 3, 2 if first else 1)
        nodes.append(node("Relu", [f"{name}1"], [f"{name}2"]))
        conv(f"{name}y", f"{name}2", f"{name}3", 3)
        if first:
            conv(f"{name}p", at, f"{name}4", 1, 2)
        nodes.append(node("Add", [f"{name}3", f"{name}4" if first else at], [f"{name}5"]))
        at = f"cut{k}" if block == 2 else f"{name}o"
        nodes.append(node("Relu", [f"{name}5"], [at]))
    if early or k == 2:
        out = f"logits{k}" if early else "logits0"
        nodes += [node("GlobalAveragePool", [at], [f"g{k}"]), node("Flatten", [f"g{k}"], [f"f{k}"])]
        nodes.append(node("Gemm", [f"f{k}", f"h{k}w", f"h{k}b"], [out]))
    return nodes


def _thresholds(stages: list[bytes], share: int) -> tuple[float | None, ...]:
    """Per exit, the confidence that so many percent of the rows that reach it have."""
    if share == 0:
        return None, None, 0.0
    rows, found = pool(), []
    for k, model in enumerate(stages[:2]):
        read, write = _reads(k), [f"cut{k}", f"logits{k}"]
        parts = [session(model).run(write, {read: rows[at : at + 64]}) for at in range(0, len(rows), 64)]
        cut, logits = (np.concatenate(each) for each in zip(*parts, strict=True))
        best = softmax(logits, 1.0).max(axis=1)
        threshold = float(np.quantile(best, 1 - share / 100))
        found.append(threshold)
        rows = cut[best < threshold]
    return *found, 0.0
