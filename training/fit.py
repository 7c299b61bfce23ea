"""Fit a network to a data set: scale bytes as it expects them, name its inputs as the data does, put exits on it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from calibration.datasets import Examples
from common.errors import ConfigError
from common.manifest import ImageSpec
from training.add_exits import add_exits
from training.argument import ArgumentError
from training.factory import Loaded
from training.heads import HeadSettings
from training.network import MultiExitNetwork
from training.recipe import ExitSettings, ModelSettings
from training.tracing import in_mode

_ROWS = 2
Rows = dict[str, Tensor]


def fit_to_data(loaded: Loaded, settings: ModelSettings, exits: ExitSettings, data: Examples) -> MultiExitNetwork:
    """Put exits on a network, with the data set's tensors as its inputs.

    A network that takes floats where the data are bytes gets them scaled to 0..1, then standardised where the
    recipe gives mean and std; that becomes part of stage 0.

    Raises:
        ConfigError: when the network does not take the data, or cannot be cut where the recipe says.
    """
    rows = {name: torch.from_numpy(np.array(array[:_ROWS])) for name, array in data.inputs.items()}
    model = loaded.model
    if isinstance(model, nn.Module):
        bytes_in = [name for name, tensor in rows.items() if tensor.dtype == torch.uint8]
        scaled = bool(bytes_in) and (settings.mean or settings.std or _takes_floats(model, loaded.example, rows))
        if scaled:
            _scale(model, list(rows), bytes_in[0], rows[bytes_in[0]], settings)
    if (settings.mean or settings.std) and (isinstance(model, ExportedProgram) or not scaled):
        raise ConfigError("model.mean and model.std have no effect: the network takes the data as they are.")
    try:
        return add_exits(
            model,
            None if isinstance(model, ExportedProgram) else _arguments(model, rows),
            exits.at,
            head=_heads(exits),
            shapes=exits.shapes,
            buckets=exits.buckets,
            mask=exits.mask,
            inputs=tuple(rows),
            classes=settings.classes or data.classes or None,
            image=_image(rows, settings, data.fit),
            max_tensors=exits.max_tensors,
        )
    except ArgumentError as error:
        if error.name == "classes" and settings.classes is None:
            raise ConfigError(f"The data's {error}") from None
        raise error.as_key() from None


def _heads(exits: ExitSettings) -> HeadSettings | list[HeadSettings]:
    if exits.heads is not None:
        return [HeadSettings(**head.model_dump()) for head in exits.heads]
    return HeadSettings(**exits.head.model_dump())


def _arguments(model: nn.Module, rows: Rows) -> Sequence[Tensor] | Mapping[str, Tensor]:
    """The rows as forward takes them: one tensor as it is, several by argument name."""
    if len(rows) == 1:
        return tuple(rows.values())
    names = [p.name for p in inspect.signature(model.forward).parameters.values()]
    if not set(rows) <= set(names):
        raise ConfigError(
            f"The network's forward takes {', '.join(names)}. The data set has {', '.join(rows)}. "
            "data.input lists those that it gets, named as forward names them."
        )
    return rows


def _takes_floats(model: nn.Module, example: Any, rows: Rows) -> bool:
    """Whether the network takes floats: as its example says, else whether it fails on bytes."""
    if example is not None:
        given = (
            example.values() if isinstance(example, Mapping) else [example] if isinstance(example, Tensor) else example
        )
        return any(tensor.is_floating_point() for tensor in given)
    arguments = _arguments(model, rows)
    try:
        with in_mode(model, training=False), torch.no_grad():
            model(**arguments) if isinstance(arguments, Mapping) else model(*arguments)
    except RuntimeError:  # a convolution or a product of bytes with floats
        return True
    return False


def _scale(model: nn.Module, names: list[str], name: str, tensor: Tensor, settings: ModelSettings) -> None:
    """Let the network itself turn bytes into floats, in front of its forward."""
    channels = tensor.shape[1]
    mean, std = settings.mean or [0.0], settings.std or [1.0]
    for key, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ConfigError(f"model.{key} has {len(values)} numbers. The data have {channels} channels.")
    if min(std) <= 0:
        raise ConfigError(f"model.std is {std}. Its numbers must be above 0.")
    tail = [1] * (tensor.ndim - 2)
    std_C = torch.tensor(std).view(-1, *tail)
    factor_C, shift_C = 1.0 / (255.0 * std_C), -torch.tensor(mean).view(-1, *tail) / std_C
    position = names.index(name)

    def scaled(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        def floats(pixels: Tensor) -> Tensor:
            return pixels.to(torch.float32) * factor_C.to(pixels.device) + shift_C.to(pixels.device)

        if name in kwargs:
            return args, {**kwargs, name: floats(kwargs[name])}
        return tuple(floats(arg) if i == position else arg for i, arg in enumerate(args)), kwargs

    model.register_forward_pre_hook(scaled, with_kwargs=True)


def _image(rows: Rows, settings: ModelSettings, fit: str) -> ImageSpec | None:
    """How a door turns an image file into the input, when the only input is an image of bytes."""
    shapes = [(name, tuple(t.shape[1:])) for name, t in rows.items() if t.dtype == torch.uint8 and t.ndim == 4]
    how = {"fit": fit} | (settings.image.model_dump() if settings.image is not None else {})
    for name, (a, b, c) in shapes if len(rows) == 1 else []:
        if a in (1, 3):
            return ImageSpec(tensor=name, mode="RGB" if a == 3 else "L", size=(b, c), layout="CHW", **how)
        if c in (1, 3):
            return ImageSpec(tensor=name, mode="RGB" if c == 3 else "L", size=(a, b), layout="HWC", **how)
    if settings.image is not None:
        raise ConfigError("model.image has no effect: the data are no images of bytes with 1 or 3 channels.")
    return None
