"""Exit heads on a frozen backbone: its weights and the statistics of its batch norms stay as they are.

The answers of the last exit are exactly those of the network without exits (Scardapane et al., 2020, "classifier-wise
training"; Kaya et al., "Shallow-Deep Networks", 2019, "IC-only").
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from common.errors import ConfigError
from training.exit_weights import Weights
from training.losses import ExitSum
from training.methods.parts import backbone, backbone_phase, early_heads
from training.network import MultiExitNetwork
from training.phase import Phase
from training.settings import TrainingSettings


class ExitsOnlyTraining(TrainingSettings):
    """The early exits learn alone; before that the backbone, where it does not come with trained weights."""

    recipe: Literal["exits-only"] = "exits-only"
    backbone_epochs: int = Field(default=0, ge=0)  # of the backbone alone; 0: it is trained already
    distillation: float = Field(default=0.0, ge=0.0)  # weight of learning from the last exit as well
    distillation_temperature: float | None = Field(default=None, gt=0.0)  # that softens what it says; 2

    @field_validator("distillation_temperature")
    @classmethod
    def _only_distilled(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and not info.data.get("distillation"):
            raise ValueError("It has no effect without distillation")
        return value

    def phases(self, network: MultiExitNetwork) -> tuple[Phase, ...]:
        """The backbone if it is to be trained, then all early heads."""
        early = len(network.exits) - 1
        if not early:
            raise ConfigError("training.recipe is exits-only. The network has no early exit to train.")
        before = [backbone_phase(network, self.backbone_epochs, smoothing=self.label_smoothing)]
        teacher = (early,) if self.distillation else ()  # must answer, and counts nothing itself
        weights = (1.0,) * early + (0.0,) * len(teacher)
        loss = ExitSum(
            exits=(*range(early), *teacher),
            weights=Weights(first=weights, last=weights),
            smoothing=self.label_smoothing,
            distillation=self.distillation,
            temperature=self.distillation_temperature or 2.0,
        )
        heads = Phase(
            name="exits", epochs=self.epochs, loss=loss, trains=early_heads(network), frozen=backbone(network)
        )
        return (*(before if self.backbone_epochs else ()), heads)
