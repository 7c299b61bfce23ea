"""Which codec each tensor gets at each cut: the fewest bytes whose cost in accuracy is within the recipe's allowance.

Every codec is tried with every compression, and an affine one with several ranges. What a code costs is measured
on the tune split by running the later stages on what it lets through: the rise of every later exit's mean
cross-entropy, the drop of the last exit's accuracy, and the share of rows whose last answer stays the same. Bytes
are those of rows coded alone, as a single forwarded row travels. Times are reported and decide nothing: they
belong to a machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.document import described
from calibration.ranges import by_bytes, bytes_per_row, later_logits, losses, raw, trial_ranges
from calibration.served import Served
from calibration.settings import CutSettings
from common.manifest import CODECS, COMPRESSIONS, PER_CHANNEL, CutTensor
from common.types import Array, Tensors
from common.wire.codecs import decode, encode

_ROWS_TIMED = 50

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a code takes and what it costs."""

    how: CutTensor
    bytes: float  # mean per row
    rise: float  # largest rise of a later exit's mean cross-entropy, nats
    drop: float  # of the last exit's accuracy, share of rows
    agreement: float  # share of rows whose last answer is the same
    microseconds: float  # encode + decode of one row, median

    def within(self, allowed: CutSettings) -> bool:
        """Whether the recipe allows it."""
        changed = 1.0 - self.agreement
        return self.rise <= allowed.loss and self.drop <= allowed.drop and changed <= allowed.changed + 1e-9


def choose_cut(
    served: Served, cut: int, live: Tensors, labels_N: Array, allowed: CutSettings, report: Report
) -> tuple[CutTensor, ...]:
    """Codes for the tensors of one cut, the largest tensor first, each beside the choices made before it.

    So the allowance holds for all tensors of the cut together. Later cuts are run with the manifest's codes.

    Args:
        served: runs the stages.
        cut: number of the cut.
        live: the tune split's tensors known before the cut.
        labels_N: the tune split's labels.
        allowed: the recipe's allowance per cut.
        report: takes one line per codec that was measured.
    """
    choice = _Choice(served, cut, live, labels_N, allowed)
    for at in sorted(range(len(choice.codes)), key=lambda at: -live[choice.codes[at].name][:1].nbytes):
        best: Cost | None = None
        for codec in _codecs(served, choice.codes[at].name):
            found = choice.best_of(codec, at)
            report(f"cut {cut}: {_line(found, allowed)}")
            if found.within(allowed) and (best is None or found.bytes < best.bytes):
                best = found
        if best is not None:  # with an allowance below what rounding costs, not even raw may be within
            choice.codes[at] = best.how
    return tuple(choice.codes)


class _Choice:
    """The codes of one cut while they are chosen, compared with crossing it uncoded."""

    def __init__(self, served: Served, cut: int, live: Tensors, labels_N: Array, allowed: CutSettings) -> None:
        self.codes = [replace(raw(how), compression="none") for how in served.manifest.cuts[cut]]
        self._served, self._cut, self._live, self._labels_N, self._allowed = served, cut, live, labels_N, allowed
        logits = later_logits(served, cut, live, self.codes)
        self._losses_E = losses(logits, labels_N)
        self._answers_N = logits[-1].argmax(axis=1)

    def best_of(self, codec: str, at: int) -> Cost:
        """The smallest code of a codec that is within the allowance; when none is, the one that costs least."""
        array = self._live[self.codes[at].name]
        known: dict[CutTensor, Cost] = {}
        ranges = trial_ranges(array, replace(self.codes[at], codec=codec))
        trials = [replace(how, compression=compression) for how in ranges for compression in COMPRESSIONS]
        for size, how in by_bytes(array, trials):
            key = replace(how, compression="none")  # compression loses nothing
            if key not in known:
                known[key] = self._cost(how, at, size)
            if known[key].within(self._allowed):
                break
        return min(known.values(), key=lambda cost: (not cost.within(self._allowed), -cost.agreement, cost.rise))

    def _cost(self, how: CutTensor, at: int, size: float) -> Cost:
        codes = [*self.codes[:at], how, *self.codes[at + 1 :]]
        logits = later_logits(self._served, self._cut, self._live, codes)
        answers_N = logits[-1].argmax(axis=1)
        right = float((answers_N == self._labels_N).mean())
        return Cost(
            how=how,
            bytes=size,
            rise=float((losses(logits, self._labels_N) - self._losses_E).max()),
            drop=float((self._answers_N == self._labels_N).mean()) - right,
            agreement=float((answers_N == self._answers_N).mean()),
            microseconds=_microseconds(self._live[how.name], how),
        )


def input_bytes(served: Served, inputs: Tensors) -> tuple[str, float]:
    """The compression that makes the input smallest, and its mean bytes per row."""
    sized: dict[str, float] = {}
    for compression in COMPRESSIONS:
        codes = [CutTensor(name=name, compression=compression) for name in served.manifest.inputs]
        sized[compression] = sum(bytes_per_row(inputs[how.name], how) for how in codes)
    best = min(sized, key=sized.__getitem__)
    return best, sized[best]


def cut_bytes(live: Tensors, codes: Sequence[CutTensor]) -> float:
    """Mean bytes per row of a cut."""
    return sum(bytes_per_row(live[how.name], how) for how in codes)


def _codecs(served: Served, tensor: str) -> Iterator[str]:
    """Codecs that fit a tensor; logits travel uncoded, like whatever is not a float."""
    spec = served.manifest.tensors[tensor]
    logits = {leave.logits for leave in served.manifest.exits}
    for codec in CODECS:
        coded = codec != "raw"
        if coded and (not spec.dtype.startswith("float") or tensor in logits):
            continue
        if codec in PER_CHANNEL and not (spec.shape and isinstance(spec.shape[0], int)):
            continue
        yield codec


def _microseconds(array: Array, how: CutTensor) -> float:
    taken = []
    for i in range(min(len(array), _ROWS_TIMED)):
        started = time.perf_counter()
        decode(encode(array[i : i + 1], how), max_bytes=array.nbytes)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken)) * 1e6


def _line(cost: Cost, allowed: CutSettings) -> str:
    return (
        f"{described(cost.how)}: {cost.bytes:.0f} bytes per row, {cost.microseconds:.0f} us, "
        f"{100 * cost.agreement:.2f} % of the answers the same, accuracy {0.0 - 100 * cost.drop:+.2f} points, "
        f"cross-entropy {cost.rise + 0.0:+.5f}{'' if cost.within(allowed) else ', too dear'}"
    )
