"""Codecs for the tensors that cross a cut.

`raw` sends a tensor's own little-endian bytes. `u8` sends one byte per element, affine per tensor:
q = round((x - low) / scale) with scale = (high - low) / 255 (Jacob et al., "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018). A calibrated range makes the result
independent of which rows share a message; values outside it saturate. Either may be compressed with zstd.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
import zstandard

from common.errors import Malformed
from common.manifest import CutTensor
from common.types import Array

Buffer = bytes | memoryview
_ZSTD_LEVEL = 1
_local = threading.local()  # zstandard's objects must not be shared between threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """A tensor as it travels."""

    name: str
    dtype: str  # of the decoded tensor
    shape: tuple[int, ...]
    codec: str = "raw"
    compression: str = "none"
    scale: float = 1.0
    offset: float = 0.0
    data: Buffer


def encode(array: Array, how: CutTensor) -> Coded:
    """Code a tensor [B, ...] as its cut says."""
    scale, offset = 1.0, 0.0
    if how.codec == "u8":
        scale, offset, stored = _quantise(array, how)
    else:
        stored = array
    flat = np.ascontiguousarray(stored, stored.dtype.newbyteorder("<")).reshape(-1)
    data: Buffer = flat.view(np.uint8).data  # the array's own memory
    if how.compression == "zstd":
        data = _compressor().compress(data)
    return Coded(
        name=how.name,
        dtype=array.dtype.name,
        shape=array.shape,
        codec=how.codec,
        compression=how.compression,
        scale=scale,
        offset=offset,
        data=data,
    )


def decode(coded: Coded, *, max_bytes: int) -> Array:
    """Restore a tensor, without a copy where the codec allows it.

    Args:
        coded: what arrived.
        max_bytes: the most that the decoded tensor may take.

    Raises:
        Malformed: when sizes do not agree, or the declared size exceeds `max_bytes`.
    """
    dtype = np.dtype(coded.dtype).newbyteorder("<")
    elements = math.prod(coded.shape)
    if elements * dtype.itemsize > max_bytes:
        raise Malformed(
            f"tensor {coded.name!r} declares {elements * dtype.itemsize} bytes. At most {max_bytes} are accepted.",
            "too_large",
        )
    stored = np.dtype(np.uint8) if coded.codec == "u8" else dtype
    data = _inflate(coded, elements * stored.itemsize)
    if len(data) != elements * stored.itemsize:
        raise Malformed(
            f"tensor {coded.name!r} has {len(data)} bytes. "
            f"Shape {list(coded.shape)} in {coded.dtype} needs {elements * stored.itemsize}.",
            "bad_length",
        )
    array: Array = np.frombuffer(data, stored).reshape(coded.shape)
    if coded.codec == "u8":
        if not (math.isfinite(coded.scale) and math.isfinite(coded.offset)):
            raise Malformed(f"tensor {coded.name!r} has a scale or offset that is not finite.", "bad_value")
        array = array * np.float32(coded.scale)
        array += np.float32(coded.offset)
        array = array.astype(dtype, copy=False)
    return array


def round_trip(array: Array, how: CutTensor) -> Array:
    """What the next tier sees of a tensor: calibration and evaluation run through the wire's own codecs."""
    return array if how.codec == "raw" else decode(encode(array, how), max_bytes=array.nbytes)


def _quantise(array: Array, how: CutTensor) -> tuple[float, float, Array]:
    if how.low is not None and how.high is not None:
        low, high = how.low, how.high
    elif array.size:
        low, high = float(array.min()), float(array.max())
    else:
        low, high = 0.0, 0.0
    scale = float(np.float32((high - low) / 255.0))
    if scale < np.finfo(np.float32).tiny:  # one value only: any step will do
        scale = 1.0
    q = (array.astype(np.float32, copy=False) - np.float32(low)) * np.float32(1.0 / scale)
    np.rint(q, out=q)
    np.clip(q, 0.0, 255.0, out=q)
    return scale, float(np.float32(low)), q.astype(np.uint8)


def _inflate(coded: Coded, size: int) -> Buffer:
    if coded.compression == "none":
        return coded.data
    try:
        # Checked first: the library allocates what the frame claims.
        claimed = zstandard.frame_content_size(coded.data)
        if claimed not in (-1, size):
            raise Malformed(f"tensor {coded.name!r} inflates to {claimed} bytes. Its shape needs {size}.", "bad_length")
        data: bytes = _decompressor().decompress(coded.data, max_output_size=size)
        return data
    except zstandard.ZstdError:
        raise Malformed(f"tensor {coded.name!r} is not valid zstd data of {size} bytes.", "bad_length") from None


def _compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
    result: zstandard.ZstdCompressor = _local.compressor
    return result


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    result: zstandard.ZstdDecompressor = _local.decompressor
    return result
