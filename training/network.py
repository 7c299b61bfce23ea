"""A network with exits, written as ordered stages.

A stage is a part of the backbone; the exit head at its end is a small classifier (Teerapittayanon et al.,
"BranchyNet", 2016). Stages pass named tensors, so a tensor may skip over any number of cuts: what crosses a
cut follows from who reads what later.

Tensor names carry their axes: B rows of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.manifest import ImageSpec, TensorSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class StagePart:
    """One stage: a module over named tensors, with or without an exit head.

    `body` takes the tensors of `reads` in that order and returns those of `writes`, one tensor or a tuple.
    `head` takes the tensors of `head_reads` (anything read or written so far, and "logits0", ... of earlier exits)
    and returns logits [B, C]. `gate` takes those and returns the logit [B] of stopping here; see `training.gates`.
    """

    body: nn.Module
    reads: tuple[str, ...]
    writes: tuple[str, ...]

    head: nn.Module | None = None
    head_reads: tuple[str, ...] = ()
    gate: nn.Module | None = None


class MultiExitNetwork(nn.Module):
    """A network whose stages can run on different machines.

    Args:
        stages: in order; only the last must have a head.
        inputs: the tensors that enter stage 0, with row shapes and dtypes as a door delivers them.
        classes: names of the classes; every head returns one logit for each.
        image: how a door turns an image file into the input, when it can.
        buckets: sizes that rows with a symbolic size are padded to, by symbol.
        sample: a batch that the network accepts, by input name; left out, zeros are taken.
        shapes: row shapes of tensors between stages that have symbolic sizes.

    Raises:
        ConfigError: when a tensor is read before it is written, or written twice, or the last stage has no exit.
    """

    def __init__(
        self,
        stages: Sequence[StagePart],
        *,
        inputs: Sequence[TensorSpec],
        classes: Sequence[str],
        image: ImageSpec | None = None,
        buckets: Mapping[str, Sequence[int]] | None = None,
        sample: Mapping[str, Tensor] | None = None,
        shapes: Mapping[str, tuple[int | str, ...]] | None = None,
    ) -> None:
        super().__init__()
        self.parts: tuple[StagePart, ...] = ()
        self.inputs = tuple(inputs)
        self.classes = tuple(classes)
        self.image = image
        self.buckets = {symbol: tuple(sizes) for symbol, sizes in (buckets or {}).items()}
        self.sample = dict(sample) if sample is not None else None
        self.shapes = dict(shapes or {})
        self.set_parts(stages)

    def set_parts(self, stages: Sequence[StagePart]) -> None:
        """Take other stages, such as the same ones with gates.

        Raises:
            ConfigError: as when a network is made.
        """
        stages = tuple(stages)
        _check(stages, {spec.name for spec in self.inputs})
        self.parts = stages
        self.bodies = nn.ModuleList(part.body for part in stages)
        self.heads = nn.ModuleDict({str(k): part.head for k, part in enumerate(stages) if part.head is not None})
        self.gates = nn.ModuleDict({str(k): part.gate for k, part in enumerate(stages) if part.gate is not None})

    @property
    def exits(self) -> tuple[int, ...]:
        """The stage of every exit, in order."""
        return tuple(k for k, part in enumerate(self.parts) if part.head is not None)

    def logits_name(self, stage: int) -> str:
        """Name of the logits that the exit of `stage` writes."""
        return f"logits{self.exits.index(stage)}"

    def gate_name(self, stage: int) -> str:
        """Name of the logit that the gate of `stage` writes."""
        return f"gate{self.exits.index(stage)}"

    def crossing(self, cut: int) -> tuple[str, ...]:
        """Names of the tensors alive at the cut behind stage `cut`: written or given before it, read after it.

        Order is that of their making, so equal networks give equal manifests.
        """
        made = [spec.name for spec in self.inputs]
        for number, part in enumerate(self.parts[: cut + 1]):
            made.extend(part.writes)
            if part.head is not None:
                made.append(self.logits_name(number))
        later = {name for part in self.parts[cut + 1 :] for name in (*part.reads, *part.head_reads)}
        return tuple(name for name in made if name in later)

    def stage_reads(self, stage: int) -> tuple[str, ...]:
        """What stage `stage` with its exit needs from before it."""
        part = self.parts[stage]
        own = set(part.writes)
        return tuple(dict.fromkeys((*part.reads, *(name for name in part.head_reads if name not in own))))

    def stage_writes(self, stage: int) -> tuple[str, ...]:
        """What stage `stage` hands on: its tensors that someone reads later, then the logits of its exit and gate."""
        crossing = self.crossing(stage) if stage < len(self.parts) - 1 else ()
        writes = tuple(name for name in self.parts[stage].writes if name in crossing)
        if stage in self.exits:
            writes = (*writes, self.logits_name(stage))
        return writes if self.parts[stage].gate is None else (*writes, self.gate_name(stage))

    def row_shape(self, name: str, tensor: Tensor) -> tuple[int | str, ...]:
        """Row shape of a tensor as a manifest gives it: symbols where rows may differ."""
        given = next((spec.shape for spec in self.inputs if spec.name == name), self.shapes.get(name))
        return tuple(tensor.shape[1:]) if given is None else given

    def run_stage(self, stage: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one stage with its exit; returns everything it made, the logits under `logits_name`."""
        out = self.run_body(stage, tensors)
        return out if self.parts[stage].head is None else out | self.run_head(stage, {**tensors, **out})

    def run_body(self, stage: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the body of a stage alone; returns what it writes."""
        part = self.parts[stage]
        made = self.bodies[stage](*(tensors[name] for name in part.reads))
        return dict(zip(part.writes, (made,) if isinstance(made, Tensor) else made, strict=True))

    def run_head(self, stage: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the exit head of a stage, and its gate, on what is known by then; returns their logits [B, C], [B]."""
        head_reads = self.parts[stage].head_reads
        logits_BC = self.heads[str(stage)](*(tensors[name] for name in head_reads))
        made = {self.logits_name(stage): logits_BC}
        if self.parts[stage].gate is not None:
            made[self.gate_name(stage)] = self.gates[str(stage)](logits_BC)
        return made

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Logits [B, C] of every exit for a batch, without any exit being taken."""
        tensors = dict(zip((spec.name for spec in self.inputs), inputs, strict=True))
        for stage in range(len(self.parts)):
            tensors.update(self.run_stage(stage, tensors))
        return tuple(tensors[self.logits_name(stage)] for stage in self.exits)

    def example(self, rows: int = 2) -> tuple[Tensor, ...]:
        """A batch that the network accepts: rows of the sample, or zeros."""
        if self.sample is not None:
            return tuple(self.sample[s.name][torch.arange(rows) % len(self.sample[s.name])] for s in self.inputs)
        return tuple(
            torch.zeros((rows, *(int(size) for size in spec.shape)), dtype=getattr(torch, spec.dtype))
            for spec in self.inputs
        )


class StageWithExit(nn.Module):
    """One stage as it is packed: takes `reads` in order, returns `writes` in order."""

    def __init__(self, network: MultiExitNetwork, stage: int) -> None:
        super().__init__()
        self.network = network
        self.stage = stage
        self.reads = network.stage_reads(stage)
        self.writes = network.stage_writes(stage)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the stage on the tensors that cross the cut before it."""
        out = self.network.run_stage(self.stage, dict(zip(self.reads, tensors, strict=True)))
        return tuple(out[name] for name in self.writes)


def _check(parts: Sequence[StagePart], known: set[str]) -> None:
    if not parts or parts[-1].head is None:
        raise ConfigError("A network needs at least one stage, and its last stage needs an exit head.")
    exits = 0
    for number, part in enumerate(parts):
        for name in part.reads:
            if name not in known:
                raise ConfigError(f"Stage {number} reads {name!r}, which no earlier stage writes.")
        if twice := known & set(part.writes):
            raise ConfigError(f"Stage {number} writes {sorted(twice)[0]!r} again. Every tensor is written once.")
        known |= set(part.writes)
        for name in part.head_reads:
            if name not in known:
                raise ConfigError(f"The exit of stage {number} reads {name!r}, which nobody has written by then.")
        if part.head is not None and not part.head_reads:
            raise ConfigError(f"The exit of stage {number} names no tensor under head_reads.")
        if part.head is not None:
            known.add(f"logits{exits}")
            if part.gate is not None:
                if f"gate{exits}" in known:
                    raise ConfigError(f"Stage {number} writes 'gate{exits}' again. Every tensor is written once.")
                known.add(f"gate{exits}")
            exits += 1
