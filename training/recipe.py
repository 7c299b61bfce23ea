"""Recipes: one YAML file that says everything about how a bundle is made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from calibration.settings import CalibrationSettings, CutSettings, DataSettings, Strict, parse_section
from common.errors import ConfigError


class ModelSettings(Strict):
    """Which network, and its options."""

    factory: str
    options: dict[str, Any] = Field(default_factory=dict)


class AugmentSettings(Strict):
    """Largest random distortions of a training image; see `training.augment.Distortion`."""

    degrees: float = Field(default=0.0, ge=0.0, le=180.0)
    shift: float = Field(default=0.0, ge=0.0, le=1.0)
    scale: float = Field(default=0.0, ge=0.0, lt=1.0)
    shear: float = Field(default=0.0, ge=0.0, le=1.0)
    elastic: float = Field(default=0.0, ge=0.0, le=1.0)


class TrainingSettings(Strict):
    """Joint training of the backbone and every exit."""

    seed: int = Field(default=0, ge=0)
    epochs: int = Field(gt=0)
    batch_size: int = Field(default=256, gt=1)
    learning_rate: float = Field(default=0.004, gt=0.0)  # peak of the one-cycle rate
    weight_decay: float = Field(default=0.01, ge=0.0)
    exit_weights: list[float] = Field(min_length=1)  # of each exit's loss, first exit first
    distillation: float = Field(default=0.0, ge=0.0)  # weight of learning from the last exit's probabilities
    distillation_temperature: float = Field(2.0, gt=0.0)
    rate_penalty: float = Field(default=0.0, ge=0.0)  # weight of the bits that crossing activations take
    patience: int | None = Field(default=None, gt=0)  # stop after so many epochs without a better one
    precision: Literal["float32", "bfloat16"] = "float32"
    augment: AugmentSettings = AugmentSettings()


class Recipe(Strict):
    """How a bundle is made, from data to thresholds."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    title: str = ""  # first line of the model card
    model: ModelSettings
    data: DataSettings
    training: TrainingSettings
    cuts: CutSettings = CutSettings()
    calibration: CalibrationSettings = CalibrationSettings()


@dataclass(frozen=True, kw_only=True)
class RecipeFile:
    """A recipe and the sha256 of the file it was read from."""

    recipe: Recipe
    sha256: str


def load_recipe(path: Path) -> RecipeFile:
    """Read and check a recipe.

    Raises:
        ConfigError: one sentence that names the file and the key.
    """
    try:
        raw = path.read_bytes()
        document = yaml.safe_load(raw)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    recipe = parse_section(Recipe, document, str(path))
    return RecipeFile(recipe=recipe, sha256=hashlib.sha256(raw).hexdigest())
