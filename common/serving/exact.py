"""Exact casts: a value changes its type only when it does not change."""

from __future__ import annotations

import numpy as np

from common.types import Array

NUMBERS = "biuf"  # kinds of dtype that a tensor may have


def exact_cast(array: Array, dtype: np.dtype[np.generic]) -> tuple[Array, Array | None]:
    """Cast to `dtype` what can be represented there exactly.

    NaN casts to NaN and infinity to infinity between float types; both fail towards integers.

    Args:
        array: of any shape, any byte order; a dtype of booleans, integers or floats.
        dtype: what is wanted, in native byte order.

    Returns:
        The array as `dtype`, and None or a mask of the elements that could not be represented, of the
        array's shape.
    """
    if array.dtype == dtype:
        return array, None
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "b" or array.size == 0:
        return array.astype(dtype), None
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
        good = _unchanged(array, cast)
    return (cast, None) if good.all() else (cast, ~good)


def _unchanged(array: Array, cast: Array) -> Array:
    """Where the two are the same number, without trusting casts that are out of range."""
    good: Array
    match array.dtype.kind, cast.dtype.kind:
        case _, "b":
            good = (array == 0) | (array == 1)
        case "f", "f":
            good = (cast == array) | np.isnan(array)
        case "f", _:
            good = _within(array, cast.dtype) & (np.trunc(array) == array)
        case _, "f":
            fits = _within(cast, array.dtype)
            good = fits & (np.where(fits, cast, 0).astype(array.dtype) == array)
        case _:
            info = np.iinfo(cast.dtype)
            good = (array >= info.min) & (array <= info.max)
    return good


def _within(floats: Array, integers: np.dtype[np.generic]) -> Array:
    """Where a float lies in the range of an integer dtype; both bounds are exact as float64."""
    info = np.iinfo(integers)  # type: ignore[type-var]
    wide = floats.astype(np.float64, copy=False)
    result: Array = (wide >= float(info.min)) & (wide < float(int(info.max) + 1))
    return result
