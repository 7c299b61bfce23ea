"""Leave exits out of a network: their stages stay, without an exit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from common.errors import ConfigError
from common.rule import Rule
from common.types import Array
from training.cost import costs
from training.network import MultiExitNetwork, StagePart
from training.phase import Answers, answer
from training.placement import Measured

_LOGITS = re.compile(r"logits(\d+)")
_ROWS = 500


def keep_exits(network: MultiExitNetwork, kept: Sequence[int]) -> MultiExitNetwork:
    """The same stages, with some of the exits; weights are shared.

    Args:
        network: with exits.
        kept: numbers of exits in order; the last exit must be among them.

    Raises:
        ConfigError: when there is no such exit, the last one is missing, or one that stays reads the logits of one
            that goes.
    """
    last = len(network.exits) - 1
    if unknown := sorted(set(kept) - set(range(last + 1))):
        raise ConfigError(f"There is no exit {unknown[0]}. The network has exits 0 to {last}.")
    if last not in kept:
        raise ConfigError(f"Exit {last}, the last one, must stay.")
    numbers = {old: new for new, old in enumerate(sorted(set(kept)))}
    stages = []
    for stage, part in enumerate(network.parts):
        number = network.exits.index(stage) if stage in network.exits else None
        if number not in numbers:
            stages.append(replace(part, head=None, head_reads=(), gate=None))
            continue
        stages.append(replace(part, head_reads=tuple(_renumbered(name, number, numbers) for name in part.head_reads)))
    return rebuilt(network, stages).train(network.training)


def rebuilt(network: MultiExitNetwork, stages: Sequence[StagePart]) -> MultiExitNetwork:
    """A network with other stages, and everything else as it was."""
    return MultiExitNetwork(
        stages,
        inputs=network.inputs,
        classes=network.classes,
        image=network.image,
        buckets=network.buckets,
        sample=network.sample,
        shapes=network.shapes,
    )


def measure(
    network: MultiExitNetwork,
    inputs: Mapping[str, Array],
    labels_N: Array,
    *,
    criterion: str = "max-probability",
    rule: Rule | None = None,
) -> Measured:
    """Ask every exit about every row, in torch.

    Args:
        network: as it is; run in evaluation mode.
        inputs: [N, ...] by name, rows that nothing was trained on.
        labels_N: their classes.
        criterion: whose scores are taken.
        rule: of an operating point, instead of the criterion alone.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    everyone = tuple(range(len(network.exits)))
    parts: list[Answers] = []
    try:
        with torch.inference_mode():
            for at in range(0, len(labels_N), _ROWS):
                rows = tuple(torch.from_numpy(np.array(inputs[s.name][at : at + _ROWS])) for s in network.inputs)
                parts.append(answer(network, rows, everyone))
    finally:
        for module, mode in modes.items():
            module.training = mode
    logits = [_joined([part.logits[number] for part in parts]) for number in everyone]
    gates = {number: _joined([part.gates[number] for part in parts]) for number in parts[0].gates}
    return Measured.of(logits, labels_N, costs(network), criterion=criterion, gates=gates, rule=rule)


def _joined(parts: Sequence[Tensor]) -> Array:
    return torch.cat(list(parts)).float().numpy()


def _renumbered(name: str, reader: int | None, numbers: Mapping[int, int]) -> str:
    found = _LOGITS.fullmatch(name)
    if found is None:
        return name
    if int(found[1]) not in numbers:
        raise ConfigError(f"Exit {reader} reads the logits of exit {found[1]}, so that one cannot go alone.")
    return f"logits{numbers[int(found[1])]}"
