"""Stage after stage, each with its exit, on frozen stages before it.

Deep cascade learning (Marquez, Hare and Niranjan, "Deep Cascade Learning", 2018): little memory is needed at a time,
and a stage can be trained where it runs. A stage without an exit is trained with the next exit.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.losses import one_exit
from training.network import MultiExitNetwork
from training.phase import Phase
from training.settings import TrainingSettings


class LayerWiseTraining(TrainingSettings):
    """One phase of `epochs` for each exit, the first exit first."""

    recipe: Literal["layer-wise"] = "layer-wise"
    rate_penalty: float = Field(default=0.0, ge=0.0)  # weight of the bits that crossing activations take

    def phases(self, network: MultiExitNetwork) -> tuple[Phase, ...]:
        """For each exit the stages since the exit before it, and its head."""
        phases = []
        begin = 0
        for number, stage in enumerate(network.exits):
            loss = one_exit(number, smoothing=self.label_smoothing, rate_penalty=self.rate_penalty)
            done = (*network.bodies[:begin], *(network.heads[str(before)] for before in network.exits[:number]))
            trains = (*network.bodies[begin : stage + 1], network.heads[str(stage)])
            phases.append(Phase(name=f"exit {number}", epochs=self.epochs, loss=loss, trains=trains, frozen=done))
            begin = stage + 1
        return tuple(phases)
