"""Affine codecs: an element becomes the number of its step in a range, 256 or 16 of them.

q = round((x - low) / scale) with scale = (high - low) / (steps - 1), and x is restored as low + scale * q
(Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
2018), with one range for the tensor or one per channel (Krishnamoorthi, "Quantizing deep convolutional networks
for efficient inference", 2018). A calibrated range makes the result independent of which rows share a message;
values outside it saturate. Scale and offset travel as float32, so that both sides compute the same bits.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from common.errors import Malformed
from common.manifest import CutTensor, Range
from common.types import Array
from common.wire.codecs.coded import Buffer, Coded, Stored

_ZERO = np.float32(0.0)
_TINY = np.finfo(np.float32).tiny
_MOST = {size: float(np.finfo(f"f{size}").max) for size in (2, 4, 8)}  # of a float of so many bytes
Grid = tuple[Array, Array, Array]  # scale, offset, 1 / scale, float32: [1] or [C]


class Affine:
    """Steps of a range.

    Args:
        bits: 8, or 4 with two elements per byte: the first of a pair in the lower half.
        per_channel: one range per index of axis 1 instead of one for all.
    """

    def __init__(self, *, bits: int, per_channel: bool) -> None:
        self._bits = bits
        self._last = (1 << bits) - 1  # the highest step
        self._per_channel = per_channel

    def store(self, array: Array, how: CutTensor) -> Stored:
        """The steps, packed when there are 16 of them."""
        if how.low is not None and how.high is not None:
            scale, offset, inverse = _calibrated(how.low, how.high, self._last)
        else:
            scale, offset, inverse = _grid(*self._ends(array), self._last)
        with np.errstate(invalid="ignore", over="ignore"):  # NaN becomes the lowest step
            q = np.subtract(array, self._spread(offset, array.ndim), dtype=np.float32)
            q *= self._spread(inverse, array.ndim)
            np.rint(q, out=q)
            q.clip(_ZERO, np.float32(self._last), out=q)
            steps: Array = q.astype(np.uint8)
        return (steps if self._bits == 8 else _pack(steps)), scale, offset

    def stored_bytes(self, elements: int, itemsize: int) -> int:
        """One per element, or one per two."""
        return elements if self._bits == 8 else (elements + 1) // 2

    def restore(self, data: Buffer, coded: Coded, dtype: np.dtype[Any]) -> Array:
        """Every step's value."""
        self._check(coded, dtype)
        steps = np.frombuffer(data, np.uint8)
        if self._bits == 4:
            steps = _unpack(steps, coded.shape)
        array = steps.reshape(coded.shape).astype(np.float32)
        array *= self._spread(coded.scale, array.ndim)
        array += self._spread(coded.offset, array.ndim)
        return array.astype(dtype, copy=False)

    def _ends(self, array: Array) -> tuple[Array, Array]:
        """Smallest and largest value, [1] or [C]."""
        if not array.size:
            return np.zeros(1), np.zeros(1)
        if not self._per_channel:
            return np.array([array.min()], np.float64), np.array([array.max()], np.float64)
        others = tuple(axis for axis in range(array.ndim) if axis != 1)
        return array.min(axis=others).astype(np.float64), array.max(axis=others).astype(np.float64)

    def _spread(self, values: Array, axes: int) -> Array:
        """[C] along axis 1 of so many axes; one number for all as it is."""
        return values.reshape(1, -1, *(1,) * (axes - 2)) if self._per_channel else values[0]

    def _check(self, coded: Coded, dtype: np.dtype[Any]) -> None:
        ranges = 1
        if self._per_channel:
            if len(coded.shape) < 2:
                raise Malformed(f"tensor {coded.name!r} has no channels to travel as {coded.codec}.", "bad_shape")
            ranges = coded.shape[1]
        if not len(coded.scale) == len(coded.offset) == ranges:
            wanted = (
                f"{ranges} scales and offsets, one per channel" if self._per_channel else "one scale and one offset"
            )
            raise Malformed(
                f"tensor {coded.name!r} has {len(coded.scale)} scales and {len(coded.offset)} offsets. "
                f"{coded.codec} needs {wanted}.",
                "bad_value",
            )
        furthest = _size(coded.offset) + _size(coded.scale) * self._last
        if not furthest <= _MOST[dtype.itemsize]:
            raise Malformed(
                f"tensor {coded.name!r} has a scale or offset that is not finite, or too large.", "bad_value"
            )


def _size(numbers: Array) -> float:
    """The largest magnitude; NaN when one is."""
    return float(np.abs(numbers).max(initial=0.0)) if len(numbers) != 1 else abs(float(numbers[0]))


@lru_cache(maxsize=256)
def _calibrated(low: Range, high: Range, last: int) -> Grid:
    return _grid(np.atleast_1d(np.asarray(low, np.float64)), np.atleast_1d(np.asarray(high, np.float64)), last)


def _grid(low: Array, high: Array, last: int) -> Grid:
    scale = ((high - low) / last).astype(np.float32)
    scale[~(scale >= _TINY)] = 1.0  # one value only: any step will do
    inverse = (1.0 / scale.astype(np.float64)).astype(np.float32)
    return scale, low.astype(np.float32), inverse


def _pack(steps: Array) -> Array:
    """Two steps per byte; adjacent elements share one, which compresses best."""
    flat = steps.reshape(-1)
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    pairs = flat.view("<u2")  # the first in the lower byte
    packed = pairs >> np.uint16(4)
    packed |= pairs
    return packed.astype(np.uint8)


def _unpack(packed: Array, shape: tuple[int, ...]) -> Array:
    pairs = packed.astype("<u2")
    upper = pairs << np.uint16(4)
    pairs |= upper
    pairs &= np.uint16(0x0F0F)
    return pairs.view(np.uint8)[: math.prod(shape)]
