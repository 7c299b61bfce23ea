"""Joint training in which the earlier exits learn from the last one as well.

Phuong and Lampert, "Distillation-based Training for Multi-Exit Architectures" (2019): the last exit knows more than
the labels say, such as which classes resemble each other. It learns nothing from its pupils.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from common.errors import ConfigError
from training.exit_weights import ExitWeights, weights_for
from training.losses import ExitSum
from training.network import MultiExitNetwork
from training.phase import Phase
from training.settings import TrainingSettings


class DistilledTraining(TrainingSettings):
    """Backbone and every exit learn at once, the earlier exits from labels and from the last exit."""

    recipe: Literal["distilled"] = "distilled"
    exit_weights: ExitWeights = "equal"  # of each exit's loss, first exit first
    distillation: float = Field(default=1.0, gt=0.0)  # weight of learning from the last exit
    distillation_temperature: float = Field(default=2.0, gt=0.0)  # that softens what it says
    rate_penalty: float = Field(default=0.0, ge=0.0)  # weight of the bits that crossing activations take

    def phases(self, network: MultiExitNetwork) -> tuple[Phase, ...]:
        """One phase, for everything."""
        if len(network.exits) < 2:
            raise ConfigError("training.recipe is distilled. The network has no earlier exit to learn from the last.")
        loss = ExitSum(
            exits=tuple(range(len(network.exits))),
            weights=weights_for(self.exit_weights, network),
            smoothing=self.label_smoothing,
            rate_penalty=self.rate_penalty,
        )
        taught = replace(loss, distillation=self.distillation, temperature=self.distillation_temperature)
        return (Phase(name="distilled", epochs=self.epochs, loss=taught, trains=(network,)),)
