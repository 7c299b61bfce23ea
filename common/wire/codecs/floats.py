"""Shorter floats: IEEE 754 half precision, and bfloat16.

bfloat16 is the upper half of a float32, rounded to the nearest with ties to even; its bits travel as uint16,
since numpy has no such type. Numbers beyond a type's range become its largest finite number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from common.manifest import CutTensor
from common.types import Array
from common.wire.codecs.coded import NO_RANGE, Buffer, Coded, Stored

_MOST_FLOAT16 = np.float32(65504.0)
_MOST_BFLOAT16 = np.uint32(0x7F7F0000).view(np.float32)
_HALF = np.uint32(0x7FFF)
_ONE = np.uint32(1)
_UPPER = np.uint32(16)
_EXPONENT = np.uint32(0x7F800000)  # of a float32
_SIGNIFICAND = np.uint32(0x007FFFFF)
_SMALLEST = np.uint32((127 - 14) << 23)  # exponent of the smallest normal float16
_ROUND_AT = np.uint32(13 << 23)  # a float32 has so many more bits
_ALL_FLOAT16 = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


class Float16:
    """11 significant bits, magnitudes up to 65504.

    The same bits as numpy's own conversion, which takes three times as long both ways.
    """

    def store(self, array: Array, how: CutTensor) -> Stored:
        """Rounded to half precision, to the nearest, ties to even."""
        single = array.astype(np.float32, copy=False)
        sizes = np.abs(single)
        if not sizes.max(initial=0.0) <= _MOST_FLOAT16:  # some saturate, or are NaN
            return np.clip(single, -_MOST_FLOAT16, _MOST_FLOAT16).astype("<f2"), NO_RANGE, NO_RANGE
        exponents = sizes.view(np.uint32) & _EXPONENT
        np.maximum(exponents, _SMALLEST, out=exponents)  # below it, steps no longer shrink
        exponents += _ROUND_AT
        sizes += exponents.view(np.float32)  # so large that the sum's last bit is the half's
        halves = sizes.view(np.uint32)
        halves &= _SIGNIFICAND
        exponents >>= np.uint32(13)
        exponents -= (_SMALLEST + _ROUND_AT) >> np.uint32(13)
        halves += exponents
        signs = single.view(np.uint32) >> _UPPER
        signs &= np.uint32(0x8000)
        halves |= signs
        return halves.astype("<u2"), NO_RANGE, NO_RANGE

    def stored_bytes(self, elements: int, itemsize: int) -> int:
        """Two per element."""
        return 2 * elements

    def restore(self, data: Buffer, coded: Coded, dtype: np.dtype[Any]) -> Array:
        """Widened to the tensor's own type."""
        array: Array = _ALL_FLOAT16.take(np.frombuffer(data, "<u2")).reshape(coded.shape).astype(dtype, copy=False)
        return array


class BFloat16:
    """8 significant bits, the range of float32."""

    def store(self, array: Array, how: CutTensor) -> Stored:
        """The upper halves."""
        clipped = np.clip(array.astype(np.float32, copy=False), -_MOST_BFLOAT16, _MOST_BFLOAT16)
        bits = clipped.view(np.uint32)
        rounded = bits >> _UPPER
        rounded &= _ONE
        rounded += _HALF
        rounded += bits
        rounded >>= _UPPER
        return rounded.astype("<u2"), NO_RANGE, NO_RANGE

    def stored_bytes(self, elements: int, itemsize: int) -> int:
        """Two per element."""
        return 2 * elements

    def restore(self, data: Buffer, coded: Coded, dtype: np.dtype[Any]) -> Array:
        """Upper halves with zeros behind them."""
        bits = np.frombuffer(data, "<u2").astype(np.uint32)
        bits <<= _UPPER
        array: Array = bits.view(np.float32).reshape(coded.shape).astype(dtype, copy=False)
        return array
