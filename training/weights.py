"""Trained weights on disk: a numpy archive that remembers how it was trained. No pickle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from common.errors import ConfigError
from training.network import MultiExitNetwork
from training.recipe import Recipe
from training.train import Epoch, History

_SHAPING = ("model", "exits", "data", "training")
_ORIGIN = "__origin__"  # entry with the sections of the recipe that shaped the weights, and the training's course


def save_weights(path: Path, network: MultiExitNetwork, recipe: Recipe, history: History) -> None:
    """Write the weights in one step.

    Raises:
        ConfigError: when `path` cannot be written.
    """
    if path.suffix != ".npz":
        raise ConfigError(f"{path} must end with .npz: weights are kept as a numpy archive.")
    origin = json.dumps({"recipe": shaping(recipe), "history": asdict(history)}).encode()
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    arrays[_ORIGIN] = np.frombuffer(origin, np.uint8)
    partial = path.with_name(f".{path.name}.partial.npz")
    try:
        np.savez(partial, allow_pickle=False, **arrays)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None


def load_weights(path: Path, network: MultiExitNetwork, recipe: Recipe) -> History:
    """Put saved weights into a network, and return how they were trained.

    Raises:
        ConfigError: when the file is no such archive, or was trained by another recipe: a bundle must not name
            a recipe that did not make it.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        origin = json.loads(arrays.pop(_ORIGIN).tobytes())
        history = _history(origin["history"])
        trained = origin["recipe"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{path} does not hold the weights of a recipe's network: {reason}") from None
    if section := differing(trained, recipe):
        raise ConfigError(f"{path} was trained by a recipe whose section {section!r} differs. Train anew.")
    try:
        network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{path} does not hold the weights of this recipe's network: {reason}") from None
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


def _history(document: dict[str, Any]) -> History:
    def epoch(value: dict[str, Any]) -> Epoch:
        return Epoch(**{**value, "losses": tuple(value["losses"]), "accuracy": tuple(value["accuracy"])})

    return History(epochs=tuple(map(epoch, document["epochs"])), best=epoch(document["best"]))
