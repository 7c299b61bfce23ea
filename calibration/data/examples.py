"""Rows with labels, as every reader delivers them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from common.types import Array, Tensors

_DIGEST = 16  # bytes of a row's hash: chance collisions are out of the question


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows with labels, and the checksums of the files they came from."""

    inputs: Tensors  # name -> [N, ...] as a door delivers it
    labels_N: Array  # int64, 0..C-1
    sha256: Mapping[str, str]  # file -> of its unpacked content
    classes: tuple[str, ...] = ()  # names; label i is the i-th. Empty: the data do not say
    groups_N: Array | None = None  # rows of equal value stay in one split
    fit: str = "stretch"  # how images of another size were brought to this one

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, index_N: Array) -> Examples:
        """The rows at these positions."""
        inputs = {name: array[index_N] for name, array in self.inputs.items()}
        groups_N = None if self.groups_N is None else self.groups_N[index_N]
        return replace(self, inputs=inputs, labels_N=self.labels_N[index_N], groups_N=groups_N)

    @cached_property
    def hashes_N(self) -> Array:
        """A hash of the bytes of every row, over all input tensors, [N] of 16 bytes."""
        arrays = [np.ascontiguousarray(self.inputs[name]) for name in sorted(self.inputs)]
        flat = [array.reshape(len(array), -1).view(np.uint8) for array in arrays]
        found = np.empty(len(self), f"V{_DIGEST}")
        for row in range(len(found)):
            digest = hashlib.blake2b(digest_size=_DIGEST)
            for array in flat:
                digest.update(array[row])
            found[row] = np.void(digest.digest())
        return found
