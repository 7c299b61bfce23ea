"""A phase of training: which parameters train, on what loss, for how long.

Every way to train is a short list of phases that one loop runs through.

Tensor names carry their axes: B rows of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from training.network import MultiExitNetwork


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a network says about a batch."""

    logits: Mapping[int, Tensor]  # [B, C] by number of the exit
    crossing: tuple[Tensor, ...] = ()  # the float tensors that cross a cut, each once
    gates: Mapping[int, Tensor] = field(default_factory=dict)  # logits [B] by number of the exit, where it has one


class Loss(Protocol):
    """What a phase minimises."""

    @property
    def exits(self) -> tuple[int, ...]:
        """Numbers of the exits that it looks at."""
        ...

    def __call__(self, answers: Answers, labels_B: Tensor, progress: float) -> Tensor:
        """The training loss of a batch; `progress` runs from 0 to 1 over the phase."""
        ...

    def judge(self, answers: Answers, labels_B: Tensor) -> Tensor:
        """What makes one epoch better than another on the validation split, as a mean over the rows."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Phase:
    """A part of a training run; its best epoch by validation is kept before the next phase begins."""

    name: str
    epochs: int
    loss: Loss
    trains: tuple[nn.Module, ...]  # modules in training mode; all others keep their statistics, too
    frozen: tuple[nn.Module, ...] = ()  # whose parameters stay even where a module that trains shares them

    def parameters(self) -> tuple[nn.Parameter, ...]:
        """Those that train, each once: of the modules that do, unless frozen or not trainable before."""
        held = {id(p) for module in self.frozen for p in module.parameters()}
        found = dict.fromkeys(p for module in self.trains for p in module.parameters() if p.requires_grad)
        return tuple(p for p in found if id(p) not in held)


def answer(network: MultiExitNetwork, inputs: tuple[Tensor, ...], exits: tuple[int, ...]) -> Answers:
    """Run what these exits need of a network, and no more.

    Args:
        network: in the mode that each module is in.
        inputs: a batch, in the order of the network's inputs.
        exits: numbers of exits.
    """
    bodies, heads = _needed(network, exits)
    tensors = dict(zip((spec.name for spec in network.inputs), inputs, strict=True))
    for stage in range(len(network.parts)):
        if stage in bodies:
            tensors.update(network.run_body(stage, tensors))
        if stage in heads:
            tensors.update(network.run_head(stage, tensors))
    logits = {network.logits_name(stage) for stage in network.exits}
    crossing = dict.fromkeys(name for cut in range(len(network.parts) - 1) for name in network.crossing(cut))
    return Answers(
        logits={number: tensors[f"logits{number}"] for number in exits},
        gates={number: tensors[f"gate{number}"] for number in exits if network.parts[network.exits[number]].gate},
        crossing=tuple(
            tensors[name]
            for name in crossing
            if name in tensors and name not in logits and torch.is_floating_point(tensors[name])
        ),
    )


def _needed(network: MultiExitNetwork, exits: tuple[int, ...]) -> tuple[set[int], set[int]]:
    """The stages whose bodies, and those whose heads, have to run for these exits."""
    wanted = {f"logits{number}" for number in exits}
    bodies, heads = set(), set()
    for stage in reversed(range(len(network.parts))):
        part = network.parts[stage]
        if part.head is not None and network.logits_name(stage) in wanted:
            heads.add(stage)
            wanted.update(part.head_reads)
        if wanted.intersection(part.writes):
            bodies.add(stage)
            wanted.update(part.reads)
    return bodies, heads
