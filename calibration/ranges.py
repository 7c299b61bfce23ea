"""Ranges of the affine codecs: how coarsely each tensor may be coded at each cut.

An affine codec divides a range [low, high] into 255 or 15 steps. A range wider than the data uses fewer of them,
so that zstd packs the bytes tighter: eight bits then work as 6, 5 or 4. With 15 steps every one counts: the range
starts where the mean squared error is least, which cuts the rare largest values off (as in ACIQ, Banner et al.,
"Post training 4-bit quantization of convolutional networks for rapid-deployment", 2019). Of the ranges that cost
the later exits next to nothing on the tune split, and leave the last answers as they are, the one with the fewest
bytes is taken.

Tensor names carry their axes: N rows of a split, C channels of a tensor.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calibration.served import Served
from calibration.temperature import cross_entropy, fit_temperature
from common.manifest import AFFINE, PER_CHANNEL, CutTensor, Range
from common.types import Array, Tensors
from common.wire.codecs import encode, travels

WIDENINGS = {
    8: (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0),
    4: (1.0, 1.25, 1.5, 2.0),
}
_SHARES = tuple(k / 20 for k in range(20, 5, -1))  # of the span that 15 steps may cover: 1.0 down to 0.3
_ROWS_SIZED = 500


def data_range(array: Array) -> tuple[float, float]:
    """Smallest and largest value, never equal."""
    low, high = float(array.min()), float(array.max())
    return (low, high) if high > low else (low, low + 1.0)


def fit_cut(
    served: Served, cut: int, live: Tensors, labels_N: Array, *, loss: float, changed: float
) -> tuple[CutTensor, ...]:
    """The codes of one cut with fitted ranges; codecs and compressions stay as they are.

    A range is stretched upwards only, so that its low end, often an exact zero, stays a value that the codec
    holds exactly.

    Args:
        served: its later cuts are run with the manifest's codes (uncalibrated ones take each batch's range).
        cut: number of the cut.
        live: the tune split's tensors known before the cut.
        labels_N: the tune split's labels.
        loss: the largest rise of any later exit's mean cross-entropy, in nats at its best temperature, that
            one tensor's code may cost.
        changed: the largest share of rows whose last answer it may change, for better or worse: where a network is
            unsure, answers turn long before the cross-entropy rises.
    """
    codes = list(served.manifest.cuts[cut])
    uncoded = [raw(how) for how in codes]
    exact = later_logits(served, cut, live, uncoded)
    plain, answers_N = losses(exact, labels_N), exact[-1].argmax(axis=1)
    for at, how in enumerate(codes):
        if how.codec not in AFFINE:
            continue
        trials = trial_ranges(live[how.name], how)
        codes[at] = trials[0]
        fewest = bytes_per_row(live[how.name], trials[0])
        for size, trial in by_bytes(live[how.name], trials[1:]):
            if size >= fewest:
                break
            logits = later_logits(served, cut, live, [*uncoded[:at], trial, *uncoded[at + 1 :]])
            turned = float((logits[-1].argmax(axis=1) != answers_N).mean())
            if turned <= changed + 1e-9 and np.all(losses(logits, labels_N) <= plain + loss):
                codes[at] = trial
                break
    return tuple(codes)


def raw(how: CutTensor) -> CutTensor:
    """The same tensor uncoded."""
    return replace(how, codec="raw", low=None, high=None)


def trial_ranges(array: Array, how: CutTensor) -> list[CutTensor]:
    """The code with the ranges that are worth a trial, the finest first; itself for a codec without ranges."""
    if how.codec not in AFFINE:
        return [replace(how, low=None, high=None)]
    bits = 4 if how.codec.startswith("u4") else 8
    per_channel = how.codec in PER_CHANNEL
    low_C, high_C = np.array([data_range(column) for column in _columns(array, per_channel)]).T
    span_C = high_C - low_C
    if bits == 4:
        span_C = span_C * _best_share(_columns(array[:_ROWS_SIZED], per_channel), low_C, span_C)
    return [
        replace(how, low=_ends(low_C, per_channel), high=_ends(low_C + span_C * factor, per_channel))
        for factor in WIDENINGS[bits]
    ]


def by_bytes(array: Array, trials: list[CutTensor]) -> list[tuple[float, CutTensor]]:
    """Codes with their mean bytes per row, fewest first."""
    return sorted(((bytes_per_row(array, trial), trial) for trial in trials), key=lambda sized: sized[0])


def bytes_per_row(array: Array, how: CutTensor) -> float:
    """Mean size of a row coded alone with its ranges, over the first rows of a split."""
    return float(np.mean([travels(encode(array[i : i + 1], how)) for i in range(min(len(array), _ROWS_SIZED))]))


def later_logits(served: Served, cut: int, live: Tensors, codes: list[CutTensor]) -> list[Array]:
    """Logits [N, classes] of every exit behind a cut when it is crossed with other codes."""
    return served.logits_from(cut + 1, served.cross(cut, live, codes))


def losses(logits: list[Array], labels_N: Array) -> Array:
    """Mean cross-entropy per exit, at the temperature that suits it best."""
    return np.array([cross_entropy(each, labels_N, fit_temperature(each, labels_N)) for each in logits])


def _columns(array: Array, per_channel: bool) -> Array:
    """One row per range: what it must cover."""
    if not per_channel:
        return array.reshape(1, -1)
    return np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)


def _ends(ends_C: Array, per_channel: bool) -> Range:
    return tuple(ends_C.tolist()) if per_channel else float(ends_C[0])


def _best_share(columns_CN: Array, low_C: Array, span_C: Array) -> Array:
    """Per range, the share of its span at which 15 steps have the least mean squared error."""
    offsets = columns_CN - low_C[:, None].astype(np.float32)
    errors = []
    for share in _SHARES:
        step = (span_C * share / 15).astype(np.float32)[:, None]
        restored = np.clip(np.rint(offsets / step), 0, 15) * step
        errors.append(((restored - offsets) ** 2).mean(axis=1))
    best: Array = np.array(_SHARES)[np.argmin(errors, axis=0)]
    return best
