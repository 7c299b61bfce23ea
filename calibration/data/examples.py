"""Rows with labels, as every reader delivers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from common.types import Array, Tensors


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows with labels, and the checksums of the files they came from."""

    inputs: Tensors  # name -> [N, ...] as a door delivers it
    labels_N: Array  # int64, 0..C-1
    sha256: Mapping[str, str]  # file -> of its unpacked content
    classes: tuple[str, ...] = ()  # names; label i is the i-th. Empty: the data do not say

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, index_N: Array) -> Examples:
        """The rows at these positions."""
        inputs = {name: array[index_N] for name, array in self.inputs.items()}
        return replace(self, inputs=inputs, labels_N=self.labels_N[index_N])
