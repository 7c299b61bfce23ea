"""Bytes per row that cross each cut, beside the compressed input that could be sent instead."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from calibration.datasets import Examples
from calibration.served import Served
from common.manifest import ImageSpec, Manifest
from common.types import Array, Tensors
from common.wire.codecs import encode, travels

Row = Tensors  # one row, [1, ...] each


def forwarded_bytes(served: Served, examples: Examples, taken_N: Array, *, most: int = 1000) -> list[dict[str, Any]]:
    """Mean payload per row at each cut, coded one row at a time, over the rows that operating point `default` forwards.

    Args:
        served: runs the stages.
        examples: the split.
        taken_N: the exit at which each row leaves.
        most: rows measured per cut.

    Returns:
        Per cut: the share of all rows that is forwarded, rows measured, what travels there, mean bytes of that as
        coded, of the activations as raw float32, and of the same rows' inputs: raw, compressed with zlib at level 9,
        and as PNG files where they are images (else null). Framing is not counted.
    """
    manifest = served.manifest
    result: list[dict[str, Any]] = []
    for cut in range(len(manifest.cuts)):
        before = sum(leave.stage <= cut for leave in manifest.exits)
        forwarded = np.flatnonzero(taken_N >= before)
        entry: dict[str, Any] = {"cut": cut, "rows": 0, "share": len(forwarded) / len(taken_N)}
        if len(forwarded):
            entry |= _measured(served, cut, served.inputs(examples.take(forwarded[:most])))
        result.append(entry)
    return result


def _measured(served: Served, cut: int, inputs: Tensors) -> dict[str, Any]:
    manifest = served.manifest
    live = inputs
    for number in range(cut + 1):
        live = {**live, **served.run_stage(number, live)}
        if number < cut:
            live = {**inputs, **served.cross(number, live)}
    forward = "input" if manifest.input_cuts.issuperset(range(cut + 1)) else "activations"
    codes = manifest.input_codes if forward == "input" else manifest.cuts[cut]
    rows = [{name: array[i : i + 1] for name, array in live.items()} for i in range(len(next(iter(live.values()))))]
    own = [{name: np.ascontiguousarray(row[name]) for name in manifest.inputs} for row in rows]
    png = _png_of(manifest)

    def mean(size: Callable[[Row], int], of: list[Row]) -> float:
        return float(np.mean([size(row) for row in of]))

    return {
        "rows": len(rows),
        "forward": forward,
        "coded": mean(lambda row: sum(travels(encode(row[how.name], how)) for how in codes), rows),
        "uncoded": float(sum(live[how.name][:1].nbytes for how in manifest.cuts[cut])),
        "input": mean(lambda row: sum(array.nbytes for array in row.values()), own),
        "input_zlib": mean(lambda row: sum(len(zlib.compress(array.tobytes(), 9)) for array in row.values()), own),
        "input_png": None if png is None else mean(png, own),
    }


def _png_of(manifest: Manifest) -> Callable[[Row], int] | None:
    """What measures a row's PNG file, where the one input is an image of bytes."""
    spec = manifest.image
    if spec is None or manifest.inputs != (spec.tensor,) or manifest.tensors[spec.tensor].dtype != "uint8":
        return None
    image: ImageSpec = spec

    def size(row: Row) -> int:
        pixels = row[image.tensor][0]
        pixels_HWC = pixels if image.layout == "HWC" else np.moveaxis(pixels, 0, -1)
        file = io.BytesIO()
        Image.fromarray(pixels_HWC[:, :, 0] if image.mode == "L" else pixels_HWC).save(file, "PNG", optimize=True)
        return len(file.getvalue())

    return size
