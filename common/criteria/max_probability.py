"""Max-probability (Kaya et al., "Shallow-Deep Networks: Understanding and Mitigating Network Overthinking", 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from common.criteria.criterion import Outputs, Scored
from common.types import Array, Tensors


class MaxProbability(Scored):
    """Accept an exit's answer when its largest class probability reaches the threshold."""

    name = "max-probability"

    def score(self, outputs: Outputs, state: Tensors) -> tuple[Array, Tensors]:
        """Largest class probability, [B]."""
        return outputs.probs_BC.max(axis=1), state

    def accepts(self, probs: Sequence[float], threshold: float) -> bool:
        """Accept where the largest probability is at least the threshold."""
        return max(probs) >= threshold
