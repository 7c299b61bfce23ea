"""The backbone first, then all exits together (Kubaty et al., "How to Train Your Multi-Exit Model?", 2024)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.exit_weights import ExitWeights, weights_for
from training.losses import ExitSum
from training.methods.parts import backbone_phase
from training.network import MultiExitNetwork
from training.phase import Phase
from training.settings import TrainingSettings


class MixedTraining(TrainingSettings):
    """Two phases: the last exit alone, then everything."""

    recipe: Literal["mixed"] = "mixed"
    backbone_epochs: int = Field(gt=0)  # of the first phase; `epochs` are those of the second
    exit_weights: ExitWeights = "equal"  # of each exit's loss in the second, first exit first
    rate_penalty: float = Field(default=0.0, ge=0.0)  # weight of the bits that crossing activations take

    def phases(self, network: MultiExitNetwork) -> tuple[Phase, ...]:
        """Backbone, joint."""
        first = backbone_phase(
            network, self.backbone_epochs, smoothing=self.label_smoothing, rate_penalty=self.rate_penalty
        )
        loss = ExitSum(
            exits=tuple(range(len(network.exits))),
            weights=weights_for(self.exit_weights, network),
            smoothing=self.label_smoothing,
            rate_penalty=self.rate_penalty,
        )
        return (first, Phase(name="joint", epochs=self.epochs, loss=loss, trains=(network,)))
