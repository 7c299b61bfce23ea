"""Rows of several callers as one batch, without a copy where they already lie side by side.

After a run whose exit accepted nobody, the next stage's rows are the run's own output, cut into chunks: put together
again they are that output.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.types import Array

_WORTH_IT = 1 << 16  # bytes; less is copied more quickly than looked at


def joined(arrays: Sequence[Array]) -> Array:
    """Arrays [B, ...] of equal row shape behind each other, [sum of B, ...]."""
    first = arrays[0]
    if first.nbytes * len(arrays) >= _WORTH_IT:
        whole = _side_by_side(arrays)
        if whole is not None:
            return whole
    return np.concatenate(arrays)


def _side_by_side(arrays: Sequence[Array]) -> Array | None:
    """The part of one array that they are, in order and without gaps; None when they are not."""
    first, base = arrays[0], arrays[0].base
    if not isinstance(base, np.ndarray) or base.dtype != first.dtype or not base.flags.c_contiguous:
        return None
    start = end = address(first)
    rows = 0
    for array in arrays:
        if array.base is not base or not array.flags.c_contiguous or address(array) != end:
            return None
        end += array.nbytes
        rows += len(array)
    begin = (start - address(base)) // base.itemsize
    part: Array = base.reshape(-1)[begin : begin + (end - start) // base.itemsize]
    return part.reshape(rows, *first.shape[1:])


def address(array: Array) -> int:
    """Where in memory an array begins."""
    begin: int = array.__array_interface__["data"][0]
    return begin
