"""Bytes per row that cross each cut, beside the compressed input."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from calibration.datasets import Examples
from calibration.served import Served
from common.types import Array
from common.wire.codecs import encode, travels


def forwarded_bytes(served: Served, examples: Examples, taken_N: Array, *, most: int = 1000) -> list[dict[str, Any]]:
    """Mean payload per row at each cut, coded one row at a time, over the rows that operating point `default` forwards.

    Args:
        served: runs the stages.
        examples: the split.
        taken_N: the exit at which each row leaves.
        most: rows measured per cut.

    Returns:
        Per cut: rows measured, mean bytes coded and as raw float32, and what the same rows' inputs take raw and
        compressed with zlib at level 9. Framing is not counted.
    """
    manifest = served.manifest
    result: list[dict[str, Any]] = []
    for cut, codes in enumerate(manifest.cuts):
        before = sum(leave.stage <= cut for leave in manifest.exits)
        rows = np.flatnonzero(taken_N >= before)[:most]
        if not len(rows):
            result.append({"cut": cut, "rows": 0})
            continue
        live = served.inputs(examples.take(rows))
        inputs = [[np.ascontiguousarray(a[i : i + 1]).tobytes() for a in live.values()] for i in range(len(rows))]
        for number in range(cut + 1):
            live = {**live, **served.run_stage(number, live)}
            if number < cut:
                live = served.cross(number, live)
        crossing = [(how, live[how.name]) for how in codes]
        coded = [sum(travels(encode(array[i : i + 1], how)) for how, array in crossing) for i in range(len(rows))]
        result.append(
            {
                "cut": cut,
                "rows": len(rows),
                "coded": float(np.mean(coded)),
                "uncoded": float(sum(array[:1].nbytes for _, array in crossing)),
                "input": float(np.mean([sum(map(len, parts)) for parts in inputs])),
                "input_zlib": float(np.mean([sum(len(zlib.compress(p, 9)) for p in parts) for parts in inputs])),
            }
        )
    return result
