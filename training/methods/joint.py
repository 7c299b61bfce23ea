"""All exits together: the weighted sum of their losses (Scardapane et al., 2020, equation 6)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from training.exit_weights import ExitWeights, weights_for
from training.losses import ExitSum
from training.network import MultiExitNetwork
from training.phase import Phase
from training.settings import TrainingSettings


class JointTraining(TrainingSettings):
    """Backbone and every exit learn at once."""

    recipe: Literal["joint"] = "joint"
    exit_weights: ExitWeights = "equal"  # of each exit's loss, first exit first
    rate_penalty: float = Field(default=0.0, ge=0.0)  # weight of the bits that crossing activations take

    @model_validator(mode="before")
    @classmethod
    def _without_distillation(cls, section: Any) -> Any:
        """Bundles made before distillation was a way of its own say that they have none of it."""
        if isinstance(section, dict) and section.get("distillation") == 0:
            return {k: v for k, v in section.items() if k not in ("distillation", "distillation_temperature")}
        return section

    def phases(self, network: MultiExitNetwork) -> tuple[Phase, ...]:
        """One phase, for everything."""
        loss = ExitSum(
            exits=tuple(range(len(network.exits))),
            weights=weights_for(self.exit_weights, network),
            smoothing=self.label_smoothing,
            rate_penalty=self.rate_penalty,
        )
        return (Phase(name="joint", epochs=self.epochs, loss=loss, trains=(network,)),)
