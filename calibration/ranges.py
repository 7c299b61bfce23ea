"""Ranges of the affine codec: how coarsely each tensor may be coded at each cut.

`u8` divides a range [low, high] into 255 steps. A range wider than the data uses fewer of them, so that zstd
packs the bytes tighter: the same codec then works as one of 6, 5 or 4 bits. The coarsest step is taken that
costs the later exits next to nothing on the tune split.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibration.served import Served
from calibration.temperature import cross_entropy
from common.manifest import CutTensor
from common.types import Array, Tensors

WIDENINGS = (16.0, 12.0, 8.0, 6.0, 4.0, 3.0, 2.0, 1.5, 1.0)  # coarsest first


def data_range(array: Array) -> tuple[float, float]:
    """Smallest and largest value, never equal."""
    low, high = float(array.min()), float(array.max())
    return (low, high) if high > low else (low, low + 1.0)


def widened(low: float, high: float, factor: float) -> tuple[float, float]:
    """The range stretched upwards by `factor`, so that `low` stays a value that the codec holds exactly."""
    return low, low + (high - low) * factor


def fit_cut(served: Served, cut: int, live: Tensors, labels_N: Array, *, loss: float) -> tuple[CutTensor, ...]:
    """The codes of one cut with fitted ranges.

    Args:
        served: its later cuts are run with the manifest's codes (uncalibrated ones take each batch's range).
        cut: number of the cut.
        live: the tune split's tensors known before the cut.
        labels_N: the tune split's labels.
        loss: the largest rise of any later exit's mean cross-entropy, in nats, that one tensor's code may cost.
    """
    codes = list(served.manifest.cuts[cut])
    uncoded = [replace(how, codec="raw", low=None, high=None) for how in codes]
    plain = _losses(served, cut, live, labels_N, uncoded)
    for at, how in enumerate(codes):
        if how.codec != "u8":
            continue
        low, high = data_range(live[how.name])
        for factor in WIDENINGS:
            start, end = widened(low, high, factor)
            codes[at] = replace(how, low=start, high=end)
            trial = [*uncoded[:at], codes[at], *uncoded[at + 1 :]]
            if np.all(_losses(served, cut, live, labels_N, trial) <= plain + loss):
                break
    return tuple(codes)


def _losses(served: Served, cut: int, live: Tensors, labels_N: Array, codes: list[CutTensor]) -> Array:
    later = served.logits_from(cut + 1, served.cross(cut, live, codes))
    return np.array([cross_entropy(logits_NC, labels_N) for logits_NC in later])
