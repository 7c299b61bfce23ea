"""What a batch of tensors must be before a tier takes it, whatever protocol brought it.

Every refusal is one sentence or two that name the tensor, what it has, and what is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from common.errors import Malformed, TooLarge
from common.limits import Limits
from common.manifest import DTYPES, Manifest, TensorSpec
from common.serving.exact import NUMBERS, exact_cast
from common.types import Array, Tensors

_DOTTED = 8192  # elements up to which a scalar product is quicker than a look at each, and stays on this thread

_DTYPES = {name: np.dtype(name) for name in DTYPES}
Sizes = dict[str, int]  # symbolic size -> what it is in this batch


def admit(manifest: Manifest, start_stage: int, tensors: Mapping[str, Array], limits: Limits) -> Tensors:
    """Check a batch, cast what may be cast, and pad symbolic sizes up to their bucket.

    Args:
        manifest: of the bundle that is served.
        start_stage: the stage that runs first; it decides which tensors must be there.
        tensors: name -> [B, ...].
        limits: of the tier.

    Returns:
        The tensors that are live at `start_stage`, name -> [B, ...], in native byte order and C order.

    Raises:
        Malformed: wrong names, dtype, shape, length, an empty batch, NaN or infinity.
        TooLarge: more rows than the limits allow.
    """
    if not 0 <= start_stage < len(manifest.stages):
        raise Malformed(
            f"start_stage is {start_stage}. It must lie between 0 and {len(manifest.stages) - 1}.", "bad_stage"
        )
    names = manifest.live(start_stage)
    if len(tensors) != len(names) or not all(map(tensors.__contains__, names)):
        raise Malformed(f"The tensors are {_listed(tensors)}. They must be {_listed(names)}.", "bad_tensors")
    rows = -1
    sizes: Sizes = {}
    admitted: Tensors = {}
    for name in names:
        array = tensors[name]
        check_shape(array, manifest.tensors[name], sizes)
        if rows < 0:
            rows = array.shape[0]
            check_rows(rows, limits)
        elif array.shape[0] != rows:
            raise Malformed(
                f"Tensor {name!r} has {array.shape[0]} rows. It must have {rows}, as {names[0]!r} has.", "bad_shape"
            )
        admitted[name] = typed(array, manifest.tensors[name])
    if not sizes:
        return admitted
    padded = bucket_sizes(manifest, sizes)
    return {name: pad(array, manifest.tensors[name], padded) for name, array in admitted.items()}


def check_rows(rows: int, limits: Limits) -> None:
    """Refuse an empty batch (Malformed) and one that is over the limit (TooLarge)."""
    if rows == 0:
        raise Malformed("The batch is empty. It must hold at least one row.", "empty_batch")
    if rows > limits.batch_rows:
        raise TooLarge(f"The batch has {rows} rows. At most {limits.batch_rows} are accepted.", "batch_too_large")


def check_shape(array: Array, spec: TensorSpec, sizes: Sizes) -> None:
    """Refuse a batch whose rows do not have the spec's shape; learns the symbolic sizes in `sizes`."""
    if array.shape[1:] == spec.shape and array.ndim:
        return
    if array.ndim == len(spec.shape) + 1 and fits(array.shape[1:], spec, sizes):
        return
    expected = shown(("B", *spec.shape))
    where = ", ".join(f"{symbol} = {size}" for symbol, size in sizes.items() if symbol in spec.symbols)
    raise Malformed(
        f"Tensor {spec.name!r} has shape {shown(array.shape)}. It must be {expected}{f' with {where}' * bool(where)}.",
        "bad_shape",
    )


def fits(shape: Sequence[int], spec: TensorSpec, sizes: Sizes) -> bool:
    """Whether a row shape matches the spec; symbolic sizes must be at least 1 and agree with `sizes`."""
    if len(shape) != len(spec.shape):
        return False
    known = dict(sizes)
    for size, wanted in zip(shape, spec.shape, strict=True):
        if isinstance(wanted, str):
            if size < 1 or known.setdefault(wanted, size) != size:
                return False
        elif size != wanted:
            return False
    sizes.update(known)
    return True


def typed(array: Array, spec: TensorSpec) -> Array:
    """The batch in the spec's dtype, contiguous; refuses what cannot be represented there, NaN and infinity."""
    dtype = _DTYPES[spec.dtype]
    if array.dtype.kind not in NUMBERS:
        raise Malformed(f"Tensor {spec.name!r} has dtype {array.dtype}. It must be {spec.dtype}.", "bad_dtype")
    if array.dtype.kind == "f" and dtype.kind == "f":
        check_finite(array, spec.name)
    elif array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise Malformed(f"Tensor {spec.name!r} holds bytes other than 0 and 1. It must be bool.", "bad_dtype")
    if array.dtype != dtype:
        array, wrong = exact_cast(array, dtype)
        if wrong is not None:
            raise Malformed(
                f"Tensor {spec.name!r} holds numbers that {spec.dtype} cannot represent exactly, first in row "
                f"{_first_row(wrong)}. Send {spec.dtype}.",
                "bad_dtype",
            )
    if not (array.flags.c_contiguous and array.flags.aligned):
        array = array.copy()
    return array


def check_finite(array: Array, name: str) -> None:
    """Refuse NaN and infinity, naming the first row that holds one."""
    if array.size <= _DOTTED and math.isfinite(np.vdot(array, array)):
        return  # a sum of squares that is finite has no other summands
    finite = np.isfinite(array)
    if not finite.all():
        raise Malformed(
            f"Row {_first_row(~finite)} of tensor {name!r} holds NaN or infinity. Every number must be finite.",
            "not_finite",
        )


def bucket_sizes(manifest: Manifest, sizes: Sizes) -> Sizes:
    """The smallest bucket that holds each symbolic size; a size without buckets stays as it is.

    Raises:
        Malformed: when a size is beyond its largest bucket.
    """
    chosen: Sizes = {}
    for symbol, size in sizes.items():
        buckets = manifest.buckets.get(symbol, ())
        bucket = min((b for b in buckets if b >= size), default=None) if buckets else size
        if bucket is None:
            raise Malformed(f"A row has {size} {symbol}. At most {max(buckets)} are accepted.", "bad_shape")
        chosen[symbol] = bucket
    return chosen


def pad(array: Array, spec: TensorSpec, sizes: Sizes) -> Array:
    """The batch with every symbolic size filled up to `sizes` with the spec's pad value."""
    shape = (array.shape[0], *(sizes[size] if isinstance(size, str) else size for size in spec.shape))
    if array.shape == shape:
        return array
    padded = np.full(shape, spec.pad, array.dtype)
    padded[tuple(slice(size) for size in array.shape)] = array
    return padded


def shown(shape: Sequence[object]) -> str:
    """A shape as messages show it: [1, 28, 28], [tokens]."""
    return f"[{', '.join(map(str, shape))}]"


def _first_row(wrong: Array) -> int:
    return int(wrong.reshape(len(wrong), -1).any(axis=1).argmax())


def _listed(names: object) -> str:
    listed = ", ".join(repr(str(name)[:80]) for name in sorted(names)[:16])  # type: ignore[call-overload]
    return listed or "none"
