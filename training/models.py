"""The networks that a recipe may name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from calibration.data.files import sha256_of
from calibration.datasets import Examples
from common.errors import ConfigError
from training.factory import Loaded, is_reference, load_model
from training.fit import fit_to_data
from training.given_weights import start_from
from training.lenet import b_lenet
from training.methods.exits_only import ExitsOnlyTraining
from training.narrow_resnet import narrow_resnet
from training.network import MultiExitNetwork
from training.recipe import ExitSettings, Recipe, RecipeFile
from training.resnet import ResNet

MODELS: dict[str, Callable[..., nn.Module]] = {"b-lenet": b_lenet, "narrow-resnet": narrow_resnet, "resnet": ResNet}


def make_network(source: RecipeFile, data: Examples) -> MultiExitNetwork:
    """Build the recipe's network with random weights that the seed fixes, with what its training needs.

    A network without exits gets them.

    Raises:
        ConfigError: when there is no such network, it does not take its options or the data, or cannot be cut.
    """
    torch.manual_seed(source.recipe.training.seed)
    _check_backbone(source.recipe)
    network = _with_exits(source, data)
    source.recipe.training.prepare(network)
    return network


def _check_backbone(recipe: Recipe) -> None:
    """Refuse to put exits on a backbone that must be random; of a user's own `training.backbone` finds out."""
    training, model = recipe.training, recipe.model
    if not isinstance(training, ExitsOnlyTraining) or training.backbone_epochs or model.weights:
        return
    if not is_reference(model.factory):
        raise ConfigError(
            f"training.recipe is exits-only, and {model.factory} starts with random weights. "
            "Give it model.weights, or train it for training.backbone_epochs."
        )


def started_model(source: RecipeFile) -> Loaded:
    """The network that a recipe names, with the weights that it is to start from, if the recipe gives any.

    Raises:
        ConfigError: as `named_model`, and when the weights do not fit.
    """
    settings = source.recipe.model
    loaded = named_model(source)
    if settings.weights is not None:
        if not isinstance(loaded.model, nn.Module):
            raise ConfigError(f"model.weights has no effect on {settings.factory}, which brings its own.")
        start_from(loaded.model, source.folder / settings.weights)
    return loaded


def _with_exits(source: RecipeFile, data: Examples) -> MultiExitNetwork:
    settings = source.recipe.model
    loaded = started_model(source)
    own = {"classes": settings.classes, "mean": settings.mean, "std": settings.std, "image": settings.image}
    if isinstance(loaded.model, MultiExitNetwork):
        said = [f"model.{key}" for key, value in own.items() if value is not None]
        said += ["exits"] * (source.recipe.exits is not None)
        if said:
            raise ConfigError(f"{said[0]} has no effect on {settings.factory}, which brings its own.")
        return loaded.model
    return fit_to_data(loaded, settings, source.recipe.exits or ExitSettings(), data)


def named_model(source: RecipeFile) -> Loaded:
    """The network that a recipe names, as it is made.

    Raises:
        ConfigError: when there is none, or it does not take its options.
    """
    settings = source.recipe.model
    if is_reference(settings.factory):
        return load_model(settings.factory, source.folder, settings.options)
    if settings.factory not in MODELS:
        known = ", ".join(sorted(MODELS))
        raise ConfigError(
            f"model.factory is {settings.factory!r}. It must be one of {known}, or a file of yours: ./FILE.py:FUNCTION."
        )
    try:
        model = MODELS[settings.factory](**settings.options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"model.options do not fit {settings.factory}: {error}.") from None
    return Loaded(model=model, example=None, file="", sha256="")


def model_files(source: RecipeFile) -> dict[str, Any]:
    """For the provenance: name and sha256 of the files of a user's that network and weights come from, if they do."""
    found: dict[str, Any] = {}
    if is_reference(source.recipe.model.factory):
        loaded = named_model(source)
        found["model_file"] = {"name": loaded.file, "sha256": loaded.sha256}
    if source.recipe.model.weights is not None:
        path = source.folder / source.recipe.model.weights
        found["weights_file"] = {"name": path.name, "sha256": sha256_of(path)}
    return found
