"""Load a user's network: a function in a Python file (`./my_model.py:build`) or a saved program (`./net.pt2`).

The function returns the network, or the network and an example. Otherwise the example is looked for as an
attribute `example` of the network, of the function, or of the file; each may be a function that makes it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from calibration.user_code import called, function_in, load_module
from common.errors import ConfigError
from training.saved import load_program


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A network that a user has named."""

    model: nn.Module | ExportedProgram
    example: Any  # None: the network brings none
    file: str  # its name, without folders
    sha256: str  # of the file


def is_reference(name: str) -> bool:
    """Whether a name means a user's file and not one of offramp's own networks."""
    return name.endswith(".pt2") or ".py:" in name


def load_model(reference: str, folder: Path, options: Mapping[str, Any] | None = None) -> Loaded:
    """Load what a reference names.

    Args:
        reference: "FILE.py:FUNCTION" or "FILE.pt2".
        folder: that a relative path starts from.
        options: keyword arguments for the function.

    Raises:
        ConfigError: when there is no such file or function, or it makes no network.
    """
    if reference.endswith(".pt2"):
        if options:
            raise ConfigError(f"{reference} is a saved program and takes no options.")
        path = folder / reference
        return Loaded(model=load_program(path), example=None, file=path.name, sha256=_sha256(path))
    file, _, name = reference.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise ConfigError(f"{reference!r} names no network. It must be FILE.py:FUNCTION or FILE.pt2.")
    path = folder / file
    module = load_module(path)
    function = function_in(module, path, name)
    made = called(function, path, reference, options or {})
    model, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if isinstance(model, type) or not isinstance(model, nn.Module | ExportedProgram):
        raise ConfigError(f"{reference} returns a {type(model).__name__}. It must return a torch.nn.Module.")
    if isinstance(model, nn.Module):
        model = _plain(model, reference)
    for owner in (model, function, module):
        if example is None:
            example = getattr(owner, "example", None)
    if callable(example) and not isinstance(example, nn.Module):
        example = called(example, path, f"example of {reference}", {})
    return Loaded(model=model, example=example, file=path.name, sha256=_sha256(path))


def _plain(model: nn.Module, reference: str) -> nn.Module:
    """The network itself, with weights that can be trained and that every runtime computes with: float32."""
    model = getattr(model, "_orig_mod", model)  # of torch.compile, which has nothing to do here
    if isinstance(model, torch.jit.ScriptModule):
        raise ConfigError(f"{reference} returns a TorchScript module. It must return the torch.nn.Module itself.")
    others = {str(t.dtype)[6:] for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()} - {"float32"}
    if others:
        model.float()
        warnings.warn(f"The network's {sorted(others)[0]} weights are trained and served as float32.", stacklevel=3)
    return model


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
