"""Heads of array files that have been read before: a client sends arrays of one shape again and again.

What a head says, and that the tensor takes such an array as it is, follows from the head's bytes alone. So a file whose
head has led to an admitted array need not be parsed again; only numbers that might not be finite are looked at.
"""

from __future__ import annotations

import numpy as np

from common.manifest import TensorSpec
from common.serving.admission import typed
from common.serving.joining import address
from common.types import Array

_MOST = 64  # heads; beyond them all are forgotten, and those in use learnt again
_HEAD = 128  # bytes of the head that numpy writes for most arrays; others are parsed each time


class KnownFiles:
    """The heads of array files for one tensor.

    Args:
        spec: of the tensor.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._dtype = np.dtype(spec.dtype)
        self._bytes = self._dtype in (np.uint8, np.int8)  # any is a number, and it may lie anywhere
        self._known: dict[bytes, tuple[int, tuple[int, ...]]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, data: bytes) -> Array | None:
        """The batch that the file `data` holds, [B, ...], admitted; None where its head must be parsed.

        Raises:
            Malformed: NaN or infinity, or bytes that are no booleans.
        """
        known = self._known.get(data[:_HEAD])
        if known is None or len(data) != known[0]:
            return None
        batch: Array = np.ndarray(known[1], self._dtype, data, _HEAD)
        return batch if self._bytes else typed(batch, self._spec)

    def learn(self, data: bytes, batch: Array) -> None:
        """Remember the head of a file.

        Args:
            data: the whole file.
            batch: what it holds, read and admitted. The head is remembered only where this is the file's own memory,
                all of it after the head.
        """
        if len(data) != _HEAD + batch.nbytes or batch.dtype != self._dtype or not batch.flags.c_contiguous:
            return
        if address(batch) != address(np.frombuffer(data, np.uint8, offset=_HEAD)):
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[data[:_HEAD]] = len(data), batch.shape
