"""What every way to train has in common; each way adds its own keys, in `training.methods`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from calibration.settings import Strict

if TYPE_CHECKING:
    from training.network import MultiExitNetwork
    from training.phase import Phase

RECIPES = ("joint", "layer-wise", "exits-only", "mixed", "distilled", "gated")
_MOST, _FEWEST, _BATCHES = 256, 8, 16  # rows of a batch, and batches of an epoch, where the recipe does not say
_CROP_FLIP = {"crop": 4, "flip": True}  # He et al., "Deep Residual Learning", 2016, section 4.2


class AugmentSettings(Strict):
    """Random changes of a training image; see `training.augment`."""

    # the largest distortions, each drawn uniformly between minus and plus
    degrees: float = Field(default=0.0, ge=0.0, le=180.0)
    shift: float = Field(default=0.0, ge=0.0, le=1.0)
    scale: float = Field(default=0.0, ge=0.0, lt=1.0)
    shear: float = Field(default=0.0, ge=0.0, le=1.0)
    elastic: float = Field(default=0.0, ge=0.0, le=1.0)

    crop: int = Field(default=0, ge=0, le=64)  # pixels of 0 around the image, of which a window is cut
    flip: bool = False  # left and right, every second image


def _named(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value != "crop-flip":
        raise ValueError("It must be crop-flip, or keys such as crop, flip, degrees and shift")
    return _CROP_FLIP


class TrainingSettings(Strict):
    """Keys of every way to train."""

    recipe: str
    seed: int = Field(default=0, ge=0)
    epochs: int = Field(default=20, gt=0)
    batch_size: int | None = Field(default=None, gt=1)  # left out, see `batch_rows`
    optimizer: Literal["adamw", "sgd"] = "adamw"  # with a one-cycle rate; with momentum and a cosine rate
    learning_rate: float | None = Field(default=None, gt=0.0)  # the highest; left out, see `training.optimizer`
    momentum: float | None = Field(default=None, ge=0.0, lt=1.0)  # of sgd
    weight_decay: float | None = Field(default=None, ge=0.0)
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)  # share of the target spread over all classes
    patience: int | None = Field(default=None, gt=0)  # end a phase after so many epochs without a better one
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of products; see `training.precision`
    augment: Annotated[AugmentSettings, BeforeValidator(_named)] = AugmentSettings()

    @field_validator("recipe", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if value not in RECIPES:
            raise ValueError(f"It must be one of {', '.join(RECIPES)}")
        return value

    @field_validator("momentum")
    @classmethod
    def _only_sgd(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("optimizer") != "sgd":
            raise ValueError("It has no effect unless optimizer is sgd")
        return value

    def batch_rows(self, rows: int) -> int:
        """Rows of a batch: as the recipe says, else 256, fewer where an epoch would have less than 16 batches."""
        return self.batch_size or min(_MOST, max(_FEWEST, rows // _BATCHES))

    def prepare(self, network: MultiExitNetwork) -> None:
        """Add to a network what this way to train needs, before weights are loaded or trained."""

    @abstractmethod
    def phases(self, network: MultiExitNetwork) -> tuple[Phase, ...]:
        """What is trained, in order.

        Raises:
            ConfigError: when the settings do not fit the network.
        """
