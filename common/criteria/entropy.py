"""Entropy (Teerapittayanon et al., "BranchyNet", 2016), normalised to 0..1 as in their "DDNN" (2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from common.criteria.criterion import Outputs, Scored
from common.types import Array, Tensors


class Entropy(Scored):
    """Accept an exit's answer when its entropy, divided by log C, is at most the threshold."""

    name = "entropy"
    accept_all = 1.0
    stricter_is_higher = False

    def score(self, outputs: Outputs, state: Tensors) -> tuple[Array, Tensors]:
        """Normalised entropy between 0 (certain) and 1 (uniform), [B]."""
        return normalised_entropy(outputs.probs_BC), state

    def accepts(self, probs: Sequence[float], threshold: float) -> bool:
        """Accept where the normalised entropy is at most the threshold."""
        entropy = -sum(p * math.log(p) for p in probs if p > 0.0) / math.log(max(len(probs), 2))
        return entropy <= threshold


def normalised_entropy(p_BC: Array) -> Array:
    """Entropy of class probabilities, divided by the largest possible, [B]."""
    logs = np.log(np.maximum(p_BC, np.finfo(np.float32).tiny))
    entropy: Array = -(p_BC * logs).sum(axis=1) / np.log(max(p_BC.shape[1], 2))
    return np.clip(entropy, 0.0, 1.0)
