"""The networks that a recipe may name."""

from __future__ import annotations

from collections.abc import Callable

import torch

from common.errors import ConfigError
from training.lenet import b_lenet
from training.network import MultiExitNetwork
from training.recipe import ModelSettings

MODELS: dict[str, Callable[..., MultiExitNetwork]] = {"b-lenet": b_lenet}


def make_network(settings: ModelSettings, seed: int) -> MultiExitNetwork:
    """Build the recipe's network with random weights that the seed fixes.

    Raises:
        ConfigError: when there is no such network, or it does not take these options.
    """
    if settings.factory not in MODELS:
        raise ConfigError(f"model.factory is {settings.factory!r}. It must be one of {', '.join(sorted(MODELS))}.")
    torch.manual_seed(seed)
    try:
        return MODELS[settings.factory](**settings.options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"model.options do not fit {settings.factory}: {error}.") from None
