"""JSON values of one input tensor, one value per row, read into a numpy array.

Two ways lead there. The short one hands all rows to numpy at once; it is taken when nothing but plain numbers
can be in them. The exact one looks at every value, accepts what numpy would not (7.0 for an integer, rows of
which some are flat) and names the place of what nobody accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.errors import Malformed
from common.manifest import TensorSpec
from common.serving.admission import Sizes, fits, shown
from common.serving.exact import exact_cast
from common.serving.options import described
from common.types import Array

_EXACT = 2.0**53  # below it a float64 is exactly the integer that was written


class Column:
    """One input tensor of the bundle.

    Args:
        spec: its type and row shape.
        json_depth: how deep a row's lists may be nested.
    """

    def __init__(self, spec: TensorSpec, json_depth: int) -> None:
        self.spec = spec
        self._dtype = np.dtype(spec.dtype)
        self._count = spec.row_elements
        self._depth = json_depth
        self.whole = self._dtype.kind in "iu"
        self.marks = _marks(self._dtype)
        if self.whole:
            info = np.iinfo(self._dtype)
            self._low, self._high = int(info.min), int(info.max)

    def plain(self, values: Sequence[object]) -> Array | None:
        """All rows at once, [B, ...], or None where the exact way must have a look.

        The caller knows that there are no strings in `values`, and nothing that is spelled with one of the `marks`.
        """
        if self._count is None:
            return None
        if self._dtype == np.uint8:
            return self._bytes(values)
        try:
            with np.errstate(over="ignore"):
                array = np.array(values, self._dtype)
        except (ValueError, TypeError, OverflowError):
            return None
        rows = len(values)
        if array.shape[1:] != self.spec.shape:
            if array.shape != (rows, self._count):
                return None
            array = array.reshape(rows, *self.spec.shape)
        return array if self.whole or np.isfinite(array).all() else None

    def _bytes(self, values: Sequence[object]) -> Array | None:
        """As `plain`, for bytes: Python collects those eight times as quickly as numpy."""
        flat = bytearray()
        try:
            for value in values:
                if not isinstance(value, list):
                    return None
                _extend(flat, value, self.spec.shape if isinstance(value[0], list) else (self._count,))
        except (ValueError, TypeError, IndexError):
            return None
        return np.ndarray((len(values), *self.spec.shape), np.uint8, flat)  # type: ignore[arg-type] # no symbols

    def row(self, value: object, where: str, sizes: Sizes) -> Array:
        """One row, of the spec's shape; learns its symbolic sizes.

        Raises:
            Malformed: naming `where`, or the place within it, and what is accepted.
        """
        shape = self._shape(value, where)
        flat: list[object] = []
        _flatten(value, shape, where, flat)
        if not fits(shape, self.spec, sizes) and shape != (self._count,):
            known = ", ".join(f"{name} = {sizes[name]}" for name in self.spec.symbols if name in sizes)
            raise Malformed(
                f"{where} has shape {shown(shape)}. It must be {shown(self.spec.shape)}"
                f"{f' with {known}' if known else ''}.",
                "bad_shape",
            )
        numbers = self._numbers(flat, shape, where)
        return numbers.reshape(self.spec.shape if self._count is not None else shape)

    def _shape(self, value: object, where: str) -> tuple[int, ...]:
        """The shape that the first elements promise; refused at once where it is none that is accepted."""
        sizes: list[int] = []
        first = value
        while isinstance(first, list):
            sizes.append(len(first))
            if len(sizes) > self._depth:
                raise Malformed(f"{where} is nested deeper than {self._depth} levels.", "too_deep")
            if not first:
                break
            first = first[0]
        if not sizes and self.spec.shape:
            raise Malformed(
                f"{where} is {described(value)}. It must be a list of numbers of shape {shown(self.spec.shape)}.",
                "bad_shape",
            )
        shape = tuple(sizes)
        if shape != (self._count,) and not fits(shape, self.spec, {}):
            raise Malformed(f"{where} has shape {shown(shape)}. It must be {shown(self.spec.shape)}.", "bad_shape")
        return shape

    def _numbers(self, flat: list[object], shape: tuple[int, ...], where: str) -> Array:
        """The values as the tensor's dtype, [N]; each is looked at only when the lot is not clean."""
        kinds = set(map(type, flat))
        allowed = {int, float, bool} if self._dtype.kind == "b" else {int, float}
        if kinds <= allowed and self._dtype.kind != "b":
            array = self._whole_lot(flat) if self.whole and float in kinds else self._lot(flat)
            if array is not None:
                return array
        exact = [self._number(value, shape, where, i) for i, value in enumerate(flat)]
        return np.array(exact, self._dtype)

    def _lot(self, flat: list[object]) -> Array | None:
        try:
            with np.errstate(over="ignore"):
                array = np.array(flat, self._dtype)
        except OverflowError:
            return None
        return array if self.whole or np.isfinite(array).all() else None

    def _whole_lot(self, flat: list[object]) -> Array | None:
        """Whole numbers that are written as fractions, such as 7.0."""
        wide = np.array(flat, np.float64)
        if (np.abs(wide) >= _EXACT).any():
            return None
        array, wrong = exact_cast(wide, self._dtype)
        return array if wrong is None else None

    def _number(self, value: object, shape: tuple[int, ...], where: str, position: int) -> int | float:
        if isinstance(value, bool):
            if self._dtype.kind == "b":
                return value
        elif isinstance(value, int | float):
            if self.whole:
                if self._low <= value <= self._high and (isinstance(value, int) or value.is_integer()):
                    return int(value)
            elif self._dtype.kind == "b":
                if value in (0, 1):
                    return value
            else:
                with np.errstate(over="ignore"):
                    if np.isfinite(np.array(value, self._dtype)):
                        return value
        index = np.unravel_index(position, shape) if shape else ()
        place = "".join(f"[{i}]" for i in index)
        raise Malformed(f"{where}{place} is {described(value)}. It must be {self._accepted()}.", "bad_value")

    def _accepted(self) -> str:
        if self.whole:
            return f"a whole number from {self._low} to {self._high} ({self.spec.dtype})"
        if self._dtype.kind == "b":
            return "true, false, 1 or 0"
        return f"a number within the range of {self.spec.dtype}"


def _marks(dtype: np.dtype[Any]) -> tuple[bytes, ...]:
    """Letters of what the short way would take for numbers of this type: booleans, nulls, fractions cut off.

    An `e` stands in true, in false and in exponents; an `r` or an `l` in true, false and null.
    """
    if dtype == np.uint8:  # Python itself refuses to make a byte of a fraction or a null
        return (b"e",)
    return (b"e", b"E", b".") if dtype.kind in "iu" else (b"r", b"l")


def _flatten(value: object, shape: tuple[int, ...], where: str, flat: list[object]) -> None:
    """Append the elements in order; every list must have the length that the first of its level has.

    Raises:
        Malformed: naming the first list that has not.
    """
    if not shape:
        flat.append(value)
        return
    if not isinstance(value, list):
        raise Malformed(f"{where} is {described(value)}. It must be a list of {shape[0]}.", "ragged")
    if len(value) != shape[0]:
        raise Malformed(
            f"{where} has {len(value)} elements. It must have {shape[0]}, as the lists before it have.", "ragged"
        )
    if len(shape) > 1:
        for i, part in enumerate(value):
            _flatten(part, shape[1:], f"{where}[{i}]", flat)
        return
    flat.extend(value)


def _extend(flat: bytearray, value: Any, shape: Sequence[Any]) -> None:
    """Append the numbers of nested lists of exactly this shape; raises ValueError or TypeError for anything else."""
    if len(value) != shape[0]:
        raise ValueError
    if len(shape) == 1:
        flat += bytearray(value)  # from a list this is four times as quick as extend
        return
    for part in value:
        _extend(flat, part, shape[1:])


def stack(rows: Sequence[Array], spec: TensorSpec, sizes: Sizes) -> Array:
    """Rows as one batch, [B, ...]; symbolic sizes are filled up to `sizes` with the spec's pad value."""
    if not spec.symbols:
        return np.stack(rows)
    shape = tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape)
    batch = np.full((len(rows), *shape), spec.pad, spec.dtype)
    for number, row in enumerate(rows):
        batch[number][tuple(slice(size) for size in row.shape)] = row
    return batch
