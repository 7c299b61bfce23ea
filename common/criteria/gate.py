"""The learned gate: a small part of the network that has learned whether to stop here.

Sources: Bolukbasi et al., "Adaptive Neural Networks for Efficient Inference" (2017); Scardapane et al.,
"Differentiable branching in deep networks for fast inference" (2020), where h = sigmoid(g) weighs an exit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.criteria.criterion import Outputs, Scored
from common.types import Array, Tensors


class Gate(Scored):
    """Accept an exit's answer when its gate says so with at least the threshold's probability."""

    name = "gate"
    by_row = False

    def score(self, outputs: Outputs, state: Tensors) -> tuple[Array, Tensors]:
        """Sigmoid of the gate's logit, [B]; NaN, which never accepts, at an exit without a gate."""
        if outputs.gate_B is None:
            return np.full(len(outputs.labels_B), np.nan, np.float32), state
        return sigmoid(outputs.gate_B), state

    def accepts(self, probs: Sequence[float], threshold: float) -> bool:
        """Never asked: class probabilities do not tell."""
        raise NotImplementedError


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), without overflow for any finite z."""
    tail = np.exp(-np.abs(z.astype(np.float32, copy=False)))
    result: Array = np.where(z >= 0, 1.0, tail) / (1.0 + tail)
    return result
