"""Class probabilities from logits: for a batch in numpy, for a single row of few classes in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from common.types import Array

LOWEST = np.float32(-87.0)  # its exponential is still an ordinary float32


def softmax(logits_BC: Array, temperature: float = 1.0) -> Array:
    """Calibrated class probabilities, [B, C] float32, without overflow for any finite logits.

    Dividing logits by one number per exit is temperature scaling (Guo et al., "On Calibration of Modern
    Neural Networks", 2017).
    """
    scaled = logits_BC.astype(np.float32, copy=False)
    if temperature != 1.0:
        scaled = scaled / np.float32(temperature)
    exp = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    exp /= exp.sum(axis=1, keepdims=True)
    result: Array = exp
    return result


def log_softmax(logits_BC: Array, temperature: float = 1.0) -> Array:
    """Logarithms of the calibrated class probabilities, [B, C] float32; none falls below `LOWEST`."""
    scaled = logits_BC.astype(np.float32, copy=False)
    if temperature != 1.0:
        scaled = scaled / np.float32(temperature)
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    result: Array = np.maximum(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)), LOWEST)
    return result


def softmax_row(logits: Sequence[float], temperature: float = 1.0) -> tuple[int, list[float]]:
    """The label and the calibrated probabilities of one row, in plain Python."""
    top = max(logits)
    exp = [math.exp((z - top) / temperature) for z in logits]
    total = sum(exp)
    return logits.index(top), [e / total for e in exp]
