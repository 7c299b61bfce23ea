"""Patience (Zhou et al., "BERT Loses Patience: Fast and Robust Inference with Early Exit", 2020, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from common.criteria.criterion import AGREED, LABEL, Compared, Outputs
from common.types import Array, Tensors


class Patience(Compared):
    """Accept an exit's answer when that many exits in a row have given it, this one included.

    Zhou et al. count agreements instead of exits: their patience is one less.
    """

    name = "patience"
    accept_all = 1.0
    decimals = 0
    by_row = False
    state: Mapping[str, str] = MappingProxyType({LABEL: "int32", AGREED: "int32"})

    def check(self, threshold: float) -> None:
        """Raise ValueError unless the threshold is a whole number from 1, or NaN."""
        if not (math.isnan(threshold) or (threshold >= 1.0 and float(threshold).is_integer())):
            raise ValueError(f"A {self.name} threshold is {threshold}. It must be a whole number from 1.")

    def score(self, outputs: Outputs, state: Tensors) -> tuple[Array, Tensors]:
        """How many exits in a row have given this answer, [B]; the answer and that number are kept."""
        labels_B = outputs.labels_B.astype(np.int32)
        agreed_B = np.ones(len(labels_B), np.int32)
        if AGREED in state:
            agreed_B += np.where(labels_B == state[LABEL], state[AGREED], 0).astype(np.int32)
        return agreed_B, {LABEL: labels_B, AGREED: agreed_B}

    def accepts(self, probs: Sequence[float], threshold: float) -> bool:
        """Never asked: one exit's class probabilities do not tell."""
        raise NotImplementedError
