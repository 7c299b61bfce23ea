"""The networks that a recipe may name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from calibration.datasets import Examples
from common.errors import ConfigError
from training.factory import Loaded, is_reference, load_model
from training.fit import fit_to_data
from training.lenet import b_lenet
from training.narrow_resnet import narrow_resnet
from training.network import MultiExitNetwork
from training.recipe import ExitSettings, RecipeFile
from training.resnet import ResNet

MODELS: dict[str, Callable[..., nn.Module]] = {"b-lenet": b_lenet, "narrow-resnet": narrow_resnet, "resnet": ResNet}


def make_network(source: RecipeFile, data: Examples) -> MultiExitNetwork:
    """Build the recipe's network with random weights that the seed fixes, with what its training needs.

    A network without exits gets them.

    Raises:
        ConfigError: when there is no such network, it does not take its options or the data, or cannot be cut.
    """
    torch.manual_seed(source.recipe.training.seed)
    network = _with_exits(source, data)
    source.recipe.training.prepare(network)
    return network


def _with_exits(source: RecipeFile, data: Examples) -> MultiExitNetwork:
    settings = source.recipe.model
    loaded = named_model(source)
    own = {"classes": settings.classes, "mean": settings.mean, "std": settings.std, "image": settings.image}
    if isinstance(loaded.model, MultiExitNetwork):
        said = [key for key, value in own.items() if value is not None] + ["exits"] * (source.recipe.exits is not None)
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


def model_file(source: RecipeFile) -> dict[str, Any]:
    """For the provenance: name and sha256 of the user's file that the network comes from, if it does."""
    if not is_reference(source.recipe.model.factory):
        return {}
    loaded = named_model(source)
    return {"model_file": {"name": loaded.file, "sha256": loaded.sha256}}
