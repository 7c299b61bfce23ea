"""Bodies of type application/x-npy: numpy's array file, read without pickle and without trust.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. The head is checked, and the
size that it declares compared with the bytes that are there, before an array exists.
"""

from __future__ import annotations

import ast
import functools
import math
import re
import struct
from typing import NamedTuple

import numpy as np

from common.errors import Malformed
from common.manifest import TensorSpec
from common.serving.admission import shown
from common.types import Array

MAGIC = b"\x93NUMPY"
_MAX_EXTENT = 1 << 40  # bytes; numpy refuses to shape what lies far beyond
_MAX_HEAD = 4096
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")


def read_npy(data: bytes, spec: TensorSpec, what: str = "The body") -> Array:
    """Read one array: a batch, or a single row of the spec's rank, as a batch of one.

    Args:
        data: the whole file.
        spec: the tensor that it is for; only its rank is used.
        what: how messages name the file.

    Returns:
        A batch, [B, ...], with the file's own dtype, in C order; it may share memory with `data`.

    Raises:
        Malformed: not an npy file, a dtype that is not a plain number, a rank that does not fit, or more or
            fewer bytes than declared.
    """
    begin, start = _head(data, what)
    try:
        layout = _layout(data[begin:start])
    except ValueError as error:
        raise Malformed(f"{what} is not an npy file that is accepted: {error}.", "bad_npy") from None
    dtype, shape = layout.dtype, layout.shape
    if layout.needed != len(data) - start or layout.extent > _MAX_EXTENT:
        raise Malformed(
            f"{what} declares {shown(shape)} of {dtype}, {layout.needed} bytes. It holds {len(data) - start}.",
            "bad_length",
        )
    array = np.frombuffer(data, dtype, offset=start)
    array = array.reshape(shape[::-1]).T if layout.fortran else array.reshape(shape)
    if array.ndim == len(spec.shape):
        array = array[None]
    elif array.ndim != len(spec.shape) + 1:
        raise Malformed(
            f"{what} has shape {shown(shape)}. It must be {shown(spec.shape)} or {shown(('B', *spec.shape))}.",
            "bad_shape",
        )
    return np.ascontiguousarray(array) if layout.fortran else array


def _head(data: bytes, what: str) -> tuple[int, int]:
    """Where the head's text begins, and where the data does."""
    if not data.startswith(MAGIC) or len(data) < 12:
        raise Malformed(f"{what} is not an npy file.", "bad_npy")
    version = data[6], data[7]
    if version not in ((1, 0), (2, 0)):
        raise Malformed(f"{what} has npy version {version[0]}.{version[1]}. It must be 1.0 or 2.0.", "bad_npy")
    begin = 10 if version == (1, 0) else 12
    (size,) = struct.unpack_from("<H" if version == (1, 0) else "<I", data, 8)
    if size > _MAX_HEAD or begin + size > len(data):
        raise Malformed(f"{what} is an npy file whose head is cut off or longer than {_MAX_HEAD} bytes.", "bad_npy")
    return begin, begin + size


class _Layout(NamedTuple):
    """What a head says."""

    dtype: np.dtype[np.generic]
    fortran: bool
    shape: tuple[int, ...]
    needed: int  # bytes
    extent: int  # bytes that numpy reckons with: a zero hides no other size


@functools.lru_cache(maxsize=64)
def _layout(head: bytes) -> _Layout:
    """Read a head; the same few come again and again."""
    try:
        entries = ast.literal_eval(head.decode("latin-1").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("its head cannot be read") from None
    if not isinstance(entries, dict) or entries.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("its head must hold descr, fortran_order and shape")
    descr, fortran, shape = entries["descr"], entries["fortran_order"], entries["shape"]
    if not isinstance(descr, str) or not _DTYPE.fullmatch(descr):
        raise ValueError("its dtype must be bool, an integer of 8 to 64 bits or a float of 16 to 64 bits")
    if not isinstance(fortran, bool):
        raise ValueError("fortran_order must be True or False")
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(s) is int and 0 <= s < 1 << 40 for s in shape):
        raise ValueError("its shape must be a tuple of whole numbers")
    dtype = np.dtype(descr)
    extent = math.prod(max(size, 1) for size in shape) * dtype.itemsize
    return _Layout(dtype, fortran, shape, math.prod(shape) * dtype.itemsize, extent)
