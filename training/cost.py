"""What every stage and every exit of a network costs, in FLOPs per row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from training.flops import count_flops
from training.network import MultiExitNetwork

_ROWS = 2


@dataclass(frozen=True, kw_only=True)
class Costs:
    """FLOPs per row, by stage."""

    bodies: tuple[int, ...]
    heads: tuple[int, ...]  # 0 where a stage has no exit
    exits: tuple[int, ...]  # the stage of every exit

    @property
    def whole(self) -> int:
        """The network without its early exits."""
        return sum(self.bodies) + self.heads[-1]

    def leaving(self, exits: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """FLOPs that a row has cost when it leaves at each exit, when only `exits` are there (numbers of exits)."""
        kept = tuple(range(len(self.exits))) if exits is None else exits
        stages = [self.exits[number] for number in kept]
        return tuple(
            sum(self.bodies[: stage + 1]) + sum(self.heads[other] for other in stages if other <= stage)
            for stage in stages
        )


def costs(network: MultiExitNetwork) -> Costs:
    """Count by running the network on its example."""
    tensors: dict[str, Tensor] = dict(zip((spec.name for spec in network.inputs), network.example(_ROWS), strict=True))
    modes = {module: module.training for module in network.modules()}
    network.eval()
    bodies, heads = [], []
    try:
        with torch.no_grad():
            for stage in range(len(network.parts)):
                bodies.append(count_flops(partial(_take, network.run_body, stage, tensors)) // _ROWS)
                asks = stage in network.exits
                heads.append(count_flops(partial(_take, network.run_head, stage, tensors)) // _ROWS if asks else 0)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return Costs(bodies=tuple(bodies), heads=tuple(heads), exits=network.exits)


def _take(run: Callable[[int, dict[str, Tensor]], dict[str, Tensor]], stage: int, tensors: dict[str, Tensor]) -> None:
    tensors.update(run(stage, tensors))


def dear_heads(cost: Costs) -> list[str]:
    """A sentence for every exit head that costs more than going on to the next exit and asking there."""
    sentences: list[str] = []
    for number, (stage, after) in enumerate(zip(cost.exits, cost.exits[1:], strict=False)):
        onward = sum(cost.bodies[stage + 1 : after + 1]) + cost.heads[after]
        if cost.heads[stage] > onward:
            sentences.append(
                f"The head of exit {number} takes {cost.heads[stage]:,} FLOPs, more than going on to exit "
                f"{number + 1} and asking there, {onward:,}: a smaller head, or no exit there, saves more."
            )
    return sentences
