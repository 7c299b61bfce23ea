"""Trained weights on disk: a numpy archive that remembers how it was trained. No pickle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from common.errors import ConfigError
from training.arrays import read_arrays, reason_of, write_arrays
from training.history import Epoch, History
from training.network import MultiExitNetwork
from training.recipe import Recipe

_SHAPING = ("model", "exits", "data", "training")
_WHAT = "the weights of a recipe's network"


def save_weights(path: Path, network: MultiExitNetwork, recipe: Recipe, history: History) -> None:
    """Write the weights in one step.

    Raises:
        ConfigError: when `path` cannot be written.
    """
    check_place(path)
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    write_arrays(path, arrays, {"recipe": shaping(recipe), "history": asdict(history)})


def check_place(path: Path) -> None:
    """Refuse a path for weights before anything is trained.

    Raises:
        ConfigError: when it does not end with .npz, or its folder is not there.
    """
    if path.suffix != ".npz":
        raise ConfigError(f"{path} must end with .npz: weights are kept as a numpy archive.")
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be written: there is no folder {path.parent}.")


def load_weights(path: Path, network: MultiExitNetwork, recipe: Recipe) -> History:
    """Put saved weights into a network, and return how they were trained.

    Raises:
        ConfigError: when the file is no such archive, or was trained by another recipe: a bundle must not name
            a recipe that did not make it.
    """
    arrays, origin = read_arrays(path, _WHAT)
    try:
        history = History(
            epochs=tuple(map(Epoch.of, origin["history"]["epochs"])), best=Epoch.of(origin["history"]["best"])
        )
        trained = dict(origin["recipe"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} does not hold {_WHAT}: {reason_of(error)}") from None
    if section := differing(trained, recipe):
        raise ConfigError(f"{path} was trained by a recipe whose section {section!r} differs. Train anew.")
    try:
        network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    except RuntimeError as error:
        raise ConfigError(f"{path} does not hold the weights of this recipe's network: {reason_of(error)}") from None
    network.eval()
    return history


def shaping(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe the weights depend on."""
    document = recipe.model_dump(mode="json")
    return {section: document.get(section) for section in _SHAPING}


def differing(trained: dict[str, Any], recipe: Recipe) -> str | None:
    """The first section that says something else than what `shaping` wrote down, perhaps before keys were added."""
    document = recipe.model_dump(mode="json")
    for section in _SHAPING:
        try:
            then = Recipe.model_validate({**document, section: trained.get(section)})
        except ValidationError:
            return section
        if getattr(then, section) != getattr(recipe, section):
            return section
    return None
