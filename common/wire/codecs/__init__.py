"""Codecs for the tensors that cross a cut, by the names of the manifest and of the proto's enum Codec.

| name | bits per element | what travels |
|---|---|---|
| `raw` | its own | the tensor's little-endian bytes |
| `float16`, `bfloat16` | 16 | rounded floats |
| `u8`, `u8c` | 8 | steps of one affine range per tensor, or per channel (axis 1) |
| `u4`, `u4c` | 4 | the same with 16 values, two per byte |

Each may then be compressed; see `common.wire.codecs.compression`. Everything but `raw` is for float tensors.
"""

from __future__ import annotations

import math

import numpy as np

from common.errors import Malformed
from common.manifest import AFFINE, CODECS, DTYPES, PER_CHANNEL, CutTensor
from common.types import Array
from common.wire.codecs.affine import Affine
from common.wire.codecs.coded import NO_RANGE, Buffer, Codec, Coded
from common.wire.codecs.compression import COMPRESSORS, most_bytes
from common.wire.codecs.floats import BFloat16, Float16
from common.wire.codecs.raw import Raw

__all__ = ["NO_RANGE", "REGISTRY", "Buffer", "Coded", "decode", "encode", "round_trip", "stored_at_most", "travels"]

REGISTRY: dict[str, Codec] = {
    "raw": Raw(),
    "float16": Float16(),
    "bfloat16": BFloat16(),
    "u8": Affine(bits=8, per_channel=False),
    "u8c": Affine(bits=8, per_channel=True),
    "u4": Affine(bits=4, per_channel=False),
    "u4c": Affine(bits=4, per_channel=True),
}
_LITTLE = {name: np.dtype(name).newbyteorder("<") for name in DTYPES}
_NAMES = {np.dtype(name): name for name in DTYPES}  # asking a dtype for its name takes longer than coding a row
assert set(REGISTRY) == set(CODECS), "every codec that a manifest may name is here, and no other"


def encode(array: Array, how: CutTensor) -> Coded:
    """Code a tensor [B, ...] as its cut says."""
    stored, scale, offset = REGISTRY[how.codec].store(array, how)
    data = _memory(stored)
    return Coded(
        name=how.name,
        dtype=_NAMES.get(array.dtype) or array.dtype.name,
        shape=array.shape,
        codec=how.codec,
        compression=how.compression,
        scale=scale,
        offset=offset,
        data=data if how.compression == "none" else COMPRESSORS[how.compression].pack(data),
    )


def _memory(array: Array) -> Buffer:
    """The elements as little-endian bytes: the array's own memory where that holds them so."""
    if not (array.flags.c_contiguous and array.dtype.str[0] in "<|"):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return array.data.cast("B") if array.size else b""


def decode(coded: Coded, *, max_bytes: int) -> Array:
    """Restore a tensor, without a copy where the codec allows it.

    Args:
        coded: what arrived.
        max_bytes: the most that the decoded tensor may take; checked before anything is allocated.

    Raises:
        Malformed: when sizes do not agree, the declared size exceeds `max_bytes`, or the codec does not fit.
    """
    dtype = _LITTLE[coded.dtype]
    codec = REGISTRY[coded.codec]
    elements = math.prod(coded.shape)
    extent = math.prod(max(size, 1) for size in coded.shape) * dtype.itemsize  # a zero hides no other size
    if extent > max_bytes:
        raise Malformed(
            f"tensor {coded.name!r} declares {extent} bytes. At most {max_bytes} are accepted.",
            "too_large",
        )
    if coded.codec != "raw" and dtype.kind != "f":
        raise Malformed(f"tensor {coded.name!r} must be a float tensor to travel as {coded.codec}.", "bad_value")
    size = codec.stored_bytes(elements, dtype.itemsize)
    data = coded.data
    if coded.compression != "none":
        data = COMPRESSORS[coded.compression].unpack(data, size, coded.name)
    if len(data) != size:
        raise Malformed(
            f"tensor {coded.name!r} has {len(data)} bytes. "
            f"Shape {list(coded.shape)} in {coded.dtype} needs {size} as {coded.codec}.",
            "bad_length",
        )
    return codec.restore(data, coded, dtype)


def round_trip(array: Array, how: CutTensor) -> Array:
    """What the next tier sees of a tensor: calibration and evaluation run through the wire's own codecs."""
    return array if how.codec == "raw" else decode(encode(array, how), max_bytes=array.nbytes)


def travels(coded: Coded) -> int:
    """Bytes of a tensor on the wire: its data and, for an affine codec, its ranges; headers are not counted."""
    return len(coded.data) + coded.scale.nbytes + coded.offset.nbytes


def stored_at_most(how: CutTensor, elements: int, itemsize: int, channels: int) -> int:
    """The most that `travels` can be for a tensor of so many elements."""
    stored = REGISTRY[how.codec].stored_bytes(elements, itemsize)
    ranges = 8 * (channels if how.codec in PER_CHANNEL else 1) if how.codec in AFFINE else 0
    return most_bytes(how.compression, stored) + ranges
