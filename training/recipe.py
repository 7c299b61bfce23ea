"""Recipes: one YAML file that says everything about how a bundle is made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from calibration.settings import CalibrationSettings, CutSettings, DataSettings, Strict, parse_section
from common.strict_yaml import parse_yaml, read_bytes
from training.methods import TrainingSection
from training.methods.joint import JointTraining


class Sparse(Strict):
    """A section of which only what it says is written down, so that a new key leaves older recipes as they are."""

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class ImageSettings(Strict):
    """How a door turns an image file into the input; the size is the input's own."""

    fit: Literal["exact", "stretch", "contain", "cover"] = "stretch"
    invert: bool = False


class ModelSettings(Sparse):
    """Which network, and its options; `model: FACTORY` is short for the factory alone."""

    factory: str  # one of `training.models.MODELS`, or a user's FILE.py:FUNCTION or FILE.pt2
    options: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None  # to start from, an archive (.npz); see `training.given_weights`
    # for a user's network and a backbone, which do not say it themselves
    classes: list[str] | None = None  # names; left out, 0, 1, ...
    mean: list[float] | None = None  # of bytes scaled to 0..1, per channel; left out, they are only scaled
    std: list[float] | None = None
    image: ImageSettings | None = None


def _named(value: object) -> object:
    """A factory alone stands for a model."""
    if not isinstance(value, str | dict | ModelSettings | None):
        raise ValueError("It must be a name, ./FILE.py:FUNCTION, ./FILE.pt2, or keys such as factory and options")
    return {"factory": value} if isinstance(value, str) else value


class HeadSection(Strict):
    """An exit head; see `training.heads.HeadSettings`."""

    kind: Literal["auto", "linear", "pool", "conv", "tokens"] = "auto"
    cascade: bool = False
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    channels: int | None = Field(default=None, gt=0)
    layers: int = Field(default=1, gt=0)
    token: Literal["auto", "mean", "largest", "first"] = "auto"


class ExitSettings(Sparse):
    """Where exits are put on a network that has none, and which; see `training.add_exits`."""

    at: int | list[str | float] = 3  # number of exits, or names of cuts and shares of the FLOPs
    head: HeadSection = HeadSection()  # of every early exit
    heads: list[HeadSection] | None = None  # one for each early exit; `head: [...]` is the same
    mask: str | None = None
    shapes: dict[str, list[int | str]] | None = None  # of rows, with names for sizes that differ from row to row
    buckets: dict[str, list[int]] | None = None
    max_tensors: int = Field(default=8, gt=0)
    keep: Literal["all", "greedy"] = "all"  # after training; see `training.placement`

    @model_validator(mode="before")
    @classmethod
    def _each(cls, value: object) -> object:
        """A list of heads is one for each early exit."""
        if not isinstance(value, dict) or not isinstance(value.get("head"), list):
            return value
        if value.get("heads") is not None:
            raise ValueError("It has head and heads. Leave one of them out")
        return {key: one for key, one in value.items() if key != "head"} | {"heads": value["head"]}

    @field_validator("at", mode="before")
    @classmethod
    def _one_alone(cls, value: object) -> object:
        places = [value] if isinstance(value, str | float) else value
        known = isinstance(places, list) and all(type(place) in (str, int, float) for place in places)
        if not known and type(places) is not int:
            raise ValueError("It must be the number of exits, or a list of names of cuts and shares of the FLOPs")
        return places

    @field_validator("head", "heads", mode="before")
    @classmethod
    def _kind_alone(cls, value: object) -> object:
        def settings(head: object) -> object:
            return {"kind": head} if isinstance(head, str) else head

        return [settings(head) for head in value] if isinstance(value, list) else settings(value)

    @field_validator("keep")
    @classmethod
    def _none_goes_alone(cls, value: str, info: ValidationInfo) -> str:
        heads = info.data.get("heads") or [head for head in [info.data.get("head")] if head is not None]
        if value == "greedy" and any(head.cascade for head in heads):
            raise ValueError("A cascaded head reads the exit before it, so that none can be left out alone")
        return value


class BaselineSettings(Strict):
    """A network without exits that `offramp build --baselines` trains, to compare with."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    model: ModelSettings | None = None  # left out, the recipe's
    options: dict[str, Any] = Field(default_factory=dict)  # beside and instead of the model's own
    epochs: int | None = Field(default=None, gt=0)  # left out, those of the bundle's backbone

    _factory_alone = field_validator("model", mode="before")(_named)


class CardSettings(Strict):
    """What only its maker can say of a network, for the model card."""

    use: str | None = None  # what it is for
    limits: str | None = None  # where it is known to fail


class Recipe(Sparse):
    """How a bundle is made, from data to thresholds."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    title: str = ""  # first line of the model card
    model: ModelSettings
    exits: ExitSettings | None = None
    data: DataSettings
    training: TrainingSection = JointTraining()
    cuts: CutSettings = CutSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    baselines: list[BaselineSettings] | None = None  # left out, see `training.baselines`
    card: CardSettings | None = None

    _factory_alone = field_validator("model", mode="before")(_named)


@dataclass(frozen=True, kw_only=True)
class RecipeFile:
    """A recipe, the sha256 of the file it was read from, and its folder, where relative paths start."""

    recipe: Recipe
    sha256: str
    folder: Path


def load_recipe(path: Path) -> RecipeFile:
    """Read and check a recipe.

    Raises:
        ConfigError: one sentence that names the file and the key.
    """
    raw = read_bytes(path)
    recipe = parse_section(Recipe, parse_yaml(raw, path), str(path))
    return RecipeFile(recipe=recipe, sha256=hashlib.sha256(raw).hexdigest(), folder=path.absolute().parent)
