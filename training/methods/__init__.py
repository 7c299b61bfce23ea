"""The ways to train a network with exits, one file each: settings, and the phases that follow from them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from training.methods.distilled import DistilledTraining
from training.methods.exits_only import ExitsOnlyTraining
from training.methods.gated import GatedTraining
from training.methods.joint import JointTraining
from training.methods.layer_wise import LayerWiseTraining
from training.methods.mixed import MixedTraining
from training.settings import RECIPES, TrainingSettings

METHODS: dict[str, type[TrainingSettings]] = {
    "joint": JointTraining,
    "layer-wise": LayerWiseTraining,
    "exits-only": ExitsOnlyTraining,
    "mixed": MixedTraining,
    "distilled": DistilledTraining,
    "gated": GatedTraining,
}
assert tuple(METHODS) == RECIPES


def _recipe(section: Any) -> str:
    """Which way a section of a recipe means."""
    named = section.get("recipe", "joint") if isinstance(section, dict) else getattr(section, "recipe", "joint")
    return named if named in METHODS else "joint"  # whose `recipe` then refuses the name


TrainingSection = Annotated[
    Annotated[JointTraining, Tag("joint")]
    | Annotated[LayerWiseTraining, Tag("layer-wise")]
    | Annotated[ExitsOnlyTraining, Tag("exits-only")]
    | Annotated[MixedTraining, Tag("mixed")]
    | Annotated[DistilledTraining, Tag("distilled")]
    | Annotated[GatedTraining, Tag("gated")],
    Discriminator(_recipe),
]
