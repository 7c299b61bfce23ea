"""Margin: the gap between the two most probable classes, a standard measure of active learning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.criteria.criterion import Outputs, Scored
from common.types import Array, Tensors


class Margin(Scored):
    """Accept an exit's answer when its two largest class probabilities lie far enough apart."""

    name = "margin"

    def score(self, outputs: Outputs, state: Tensors) -> tuple[Array, Tensors]:
        """Largest minus second largest class probability, [B]."""
        return gap(outputs.probs_BC), state

    def accepts(self, probs: Sequence[float], threshold: float) -> bool:
        """Accept where the two largest probabilities are at least the threshold apart."""
        first, second = sorted(probs, reverse=True)[:2] if len(probs) > 1 else (1.0, 0.0)
        return first - second >= threshold


def gap(probs_BC: Array) -> Array:
    """Largest minus second largest class probability, [B]."""
    if probs_BC.shape[1] < 2:
        return np.ones(len(probs_BC), np.float32)
    top = np.partition(probs_BC, -2, axis=1)
    result: Array = top[:, -1] - top[:, -2]
    return result
