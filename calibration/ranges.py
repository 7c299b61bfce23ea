"""Ranges of the affine codec: how coarsely each tensor may be coded at each cut.

`u8` divides a range [low, high] into 255 steps. A range wider than the data uses fewer of them, so that zstd
packs the bytes tighter: the same codec then works as one of 6, 5 or 4 bits. Of the ranges that cost the later
exits next to nothing on the tune split, the one with the fewest bytes is taken.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibration.served import Served
from calibration.temperature import cross_entropy, fit_temperature
from common.manifest import CutTensor
from common.types import Array, Tensors
from common.wire.codecs import encode

WIDENINGS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
_ROWS_SIZED = 500


def data_range(array: Array) -> tuple[float, float]:
    """Smallest and largest value, never equal."""
    low, high = float(array.min()), float(array.max())
    return (low, high) if high > low else (low, low + 1.0)


def fit_cut(served: Served, cut: int, live: Tensors, labels_N: Array, *, loss: float) -> tuple[CutTensor, ...]:
    """The codes of one cut with fitted ranges.

    A range is stretched upwards only, so that its low end, often an exact zero, stays a value that the codec
    holds exactly.

    Args:
        served: its later cuts are run with the manifest's codes (uncalibrated ones take each batch's range).
        cut: number of the cut.
        live: the tune split's tensors known before the cut.
        labels_N: the tune split's labels.
        loss: the largest rise of any later exit's mean cross-entropy, in nats at its best temperature, that
            one tensor's code may cost.
    """
    codes = list(served.manifest.cuts[cut])
    uncoded = [replace(how, codec="raw", low=None, high=None) for how in codes]
    plain = _losses(served, cut, live, labels_N, uncoded)
    for at, how in enumerate(codes):
        if how.codec != "u8":
            continue
        low, high = data_range(live[how.name])
        ranges = [replace(how, low=low, high=low + (high - low) * factor) for factor in WIDENINGS]
        codes[at], fewest = ranges[0], bytes_per_row(live[how.name], ranges[0])
        for trial in ranges[1:]:
            size = bytes_per_row(live[how.name], trial)
            if size >= fewest:
                continue
            losses = _losses(served, cut, live, labels_N, [*uncoded[:at], trial, *uncoded[at + 1 :]])
            if np.all(losses <= plain + loss):
                codes[at], fewest = trial, size
    return tuple(codes)


def bytes_per_row(array: Array, how: CutTensor) -> float:
    """Mean size of a row coded alone, over the first rows of a split."""
    return float(np.mean([len(encode(array[i : i + 1], how).data) for i in range(min(len(array), _ROWS_SIZED))]))


def _losses(served: Served, cut: int, live: Tensors, labels_N: Array, codes: list[CutTensor]) -> Array:
    """Mean cross-entropy of every exit behind the cut, at the temperature that suits it best."""
    later = served.logits_from(cut + 1, served.cross(cut, live, codes))
    return np.array([cross_entropy(logits, labels_N, fit_temperature(logits, labels_N)) for logits in later])
