"""The same first stage with its exit for the floor and for every peer; needs numpy and onnxruntime only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "mnist-lenet"


class Stage:
    """Stage 0 of the shipped bundle as a bare session, and the calibrated answer of its exit."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = str(BUNDLE / "stage0.onnx")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._temperature = json.loads((BUNDLE / "manifest.json").read_text())["exits"][0]["temperature"]
        self.answers(np.zeros((1, 1, 28, 28), np.uint8))

    def answers(self, images: np.ndarray) -> list[dict[str, float]]:
        """Label and confidence of every image, [B, 1, 28, 28] uint8."""
        _, logits = self._session.run(["cut0", "logits0"], {"image": images})
        scaled = logits / self._temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        probs = np.exp(scaled)
        probs /= probs.sum(axis=1, keepdims=True)
        labels = probs.argmax(axis=1)
        best = probs[np.arange(len(labels)), labels]
        return [{"label": a, "confidence": b} for a, b in zip(labels.tolist(), best.tolist(), strict=True)]


def pixels(numbers: object) -> np.ndarray:
    """784 numbers per image as [B, 1, 28, 28] uint8."""
    return np.array(numbers, np.uint8).reshape(-1, 1, 28, 28)


def from_npy(body: bytes) -> np.ndarray:
    """The array of an npy file of version 1.0 with one row of uint8: its head is skipped, not parsed."""
    return np.frombuffer(body, np.uint8, offset=10 + int.from_bytes(body[8:10], "little")).reshape(-1, 1, 28, 28)
