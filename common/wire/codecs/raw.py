"""The codec that leaves a tensor as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.manifest import CutTensor
from common.types import Array
from common.wire.codecs.coded import NO_RANGE, Buffer, Coded, Stored


class Raw:
    """A tensor's own little-endian bytes, of any type; no copy on either side."""

    def store(self, array: Array, how: CutTensor) -> Stored:
        """The array itself."""
        return array, NO_RANGE, NO_RANGE

    def stored_bytes(self, elements: int, itemsize: int) -> int:
        """As many as in memory."""
        return elements * itemsize

    def restore(self, data: Buffer, coded: Coded, dtype: np.dtype[Any]) -> Array:
        """A read-only view of what arrived."""
        return np.ndarray(coded.shape, dtype, data)
