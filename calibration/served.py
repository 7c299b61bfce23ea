"""Run a bundle as it will be served: its stages through a runtime, every cut through its codec.

Tensor names carry their axes: N rows of a split, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.datasets import Examples
from common.bundle import Bundle
from common.errors import BundleError, ConfigError
from common.manifest import CutTensor, Manifest, coded_cuts
from common.runtimes import runtime_named
from common.types import Array, Tensors
from common.wire.codecs import round_trip

_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Said:
    """What every exit says about some rows when no exit is taken."""

    logits: tuple[Array, ...]  # per exit, [N, C]
    gates: tuple[Array | None, ...]  # per exit, the logit of its learned gate, [N]; None: it has none


class Served:
    """All stages of a bundle in one process.

    Args:
        bundle: verified stage by stage while loading.
        runtime: a name that `common.runtimes` knows.
        threads: inside one call.
    """

    def __init__(self, bundle: Bundle, *, runtime: str = "onnxruntime", threads: int = 1) -> None:
        load = runtime_named(runtime)
        self.bundle = bundle
        self.manifest: Manifest = bundle.manifest
        self.stages = [load(bundle, number, threads) for number in range(len(self.manifest.stages))]
        self.runtime = self.stages[0].runtime
        self.precision = self.stages[0].precision

    def run_stage(self, stage: int, live: Tensors) -> Tensors:
        """Run one stage on all rows, in batches; returns what it writes, [N, ...] each."""
        parts = [self.stages[stage].run(part) for part in _batches(live)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def cross(self, cut: int, live: Tensors, codes: Sequence[CutTensor] | None = None) -> Tensors:
        """What is alive behind a cut, after encoding and decoding, in batches.

        Where the input travels over this cut and all before it, upstream computes the same activations again.

        Args:
            cut: number of the cut.
            live: all tensors known before it.
            codes: other codes than the manifest's.
        """
        if codes is None:
            codes = self.manifest.cuts[cut]
            if self.manifest.input_cuts.issuperset(range(cut + 1)):
                return {how.name: live[how.name] for how in codes}
        return {
            how.name: np.concatenate([round_trip(part["x"], how) for part in _batches({"x": live[how.name]})])
            for how in codes
        }

    def says_from(self, stage: int, live: Tensors, *, coded: bool = True) -> Said:
        """What every exit at `stage` or later says when no exit is taken, and, unless `coded`, nothing is coded."""
        logits: list[Array] = []
        gates: list[Array | None] = []
        for number in range(stage, len(self.stages)):
            live = {**live, **self.run_stage(number, live)}
            exit_number = self.manifest.stages[number].exit
            if exit_number is not None:
                leave = self.manifest.exits[exit_number]
                logits.append(live[leave.logits])
                gates.append(None if leave.gate is None else live[leave.gate].reshape(-1))
            if coded and number < len(self.manifest.cuts):
                live = self.cross(number, live)
        return Said(logits=tuple(logits), gates=tuple(gates))

    def says(self, examples: Examples) -> Said:
        """What every exit says about a split when no exit is taken.

        Raises:
            BundleError: when a number is not finite.
        """
        said = self.says_from(0, self.inputs(examples))
        for number, (logits_NC, gate_N) in enumerate(zip(said.logits, said.gates, strict=True)):
            if not np.isfinite(logits_NC).all():
                raise BundleError(f"Exit {number} of {self.manifest.name} gives logits that are not finite.")
            if gate_N is not None and not np.isfinite(gate_N).all():
                raise BundleError(f"Exit {number} of {self.manifest.name} has a gate that is not finite.")
        return said

    def logits_from(self, stage: int, live: Tensors) -> list[Array]:
        """Logits [N, C] of every exit at `stage` or later, when no exit is taken."""
        return list(self.says_from(stage, live).logits)

    def inputs(self, examples: Examples) -> Tensors:
        """The bundle's input tensors of a split.

        Raises:
            ConfigError: when the data set does not fit the bundle.
        """
        if not len(examples):
            raise ConfigError("The split holds no rows.")
        for name in self.manifest.inputs:
            spec = self.manifest.tensors[name]
            if name not in examples.inputs:
                raise ConfigError(f"The bundle reads {name!r}. The data set has {', '.join(sorted(examples.inputs))}.")
            found = examples.inputs[name]
            if found.dtype.name != spec.dtype or not spec.fits(found.shape[1:]):
                raise ConfigError(
                    f"The data set's {name!r} is {found.dtype.name} {list(found.shape[1:])}. "
                    f"The bundle takes {spec.dtype} {list(spec.shape)}."
                )
        classes = len(self.manifest.classes)
        if examples.labels_N.max() >= classes:
            raise ConfigError(f"The data set has label {examples.labels_N.max()}. The bundle has {classes} classes.")
        return {name: examples.inputs[name] for name in self.manifest.inputs}

    def configuration(self) -> dict[str, object]:
        """What measurements hold for: runtime, precision, and the cuts that were coded."""
        manifest = self.manifest
        coded = coded_cuts(manifest.cuts, manifest.input_cuts, range(len(manifest.cuts)))
        return {"runtime": self.runtime, "precision": self.precision, "coded_cuts": coded}


def _batches(tensors: Tensors) -> Iterator[Tensors]:
    rows = len(next(iter(tensors.values())))
    for at in range(0, rows, _ROWS):
        yield {name: array[at : at + _ROWS] for name, array in tensors.items()}
