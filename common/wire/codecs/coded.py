"""A tensor as it travels, and what a codec is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np

from common.manifest import CutTensor
from common.types import Array

Buffer = bytes | memoryview
Stored = tuple[Array, Array, Array]  # stored elements in any shape, scale, offset
NO_RANGE: Array = np.empty(0, np.float32)


@dataclass(slots=True, kw_only=True, eq=False)
class Coded:
    """A tensor as it travels."""

    name: Final[str]
    dtype: Final[str]  # of the decoded tensor
    shape: Final[tuple[int, ...]]  # of the decoded tensor
    codec: Final[str] = "raw"
    compression: Final[str] = "none"
    scale: Final[Array] = field(default_factory=lambda: NO_RANGE)  # of an affine codec, float32: [1], [C] per channel
    offset: Final[Array] = field(default_factory=lambda: NO_RANGE)
    data: Final[Buffer]


class Codec(Protocol):
    """Turns a float tensor into fewer bytes per element and back; both sides compute the same bits."""

    def store(self, array: Array, how: CutTensor) -> Stored:
        """What travels of a tensor [B, ...]."""
        ...

    def stored_bytes(self, elements: int, itemsize: int) -> int:
        """Bytes that so many elements take before compression; `itemsize` is that of the decoded tensor."""
        ...

    def restore(self, data: Buffer, coded: Coded, dtype: np.dtype[Any]) -> Array:
        """The tensor from exactly `stored_bytes` bytes; raises Malformed when `coded` makes no sense."""
        ...
