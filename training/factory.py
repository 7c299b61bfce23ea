"""Load a user's network: a function in a Python file (`./my_model.py:build`) or a saved program (`./net.pt2`).

The function returns the network, or the network and an example. Otherwise the example is looked for as an
attribute `example` of the network, of the function, or of the file; each may be a function that makes it.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from common.errors import ConfigError
from training.saved import load_program
from training.tracing import first_line


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
    module = _imported(path)
    function = getattr(module, name, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{path} has no function {name!r}.{hint}")
    made = _called(function, f"{reference}", options or {})
    model, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if isinstance(model, type) or not isinstance(model, nn.Module | ExportedProgram):
        raise ConfigError(f"{reference} returns a {type(model).__name__}. It must return a torch.nn.Module.")
    for owner in (model, function, module):
        if example is None:
            example = getattr(owner, "example", None)
    if callable(example) and not isinstance(example, nn.Module):
        example = _called(example, f"example of {reference}", {})
    return Loaded(model=model, example=example, file=path.name, sha256=_sha256(path))


def _imported(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"{path} cannot be read: there is no such file.")
    name = f"offramp_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles of the user's own look their module up
    with _beside(path):
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever the user's file raises
            del sys.modules[name]
            raise ConfigError(f"{path} cannot be imported: {type(error).__name__}: {first_line(error)}") from None
    return module


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Files beside the user's may be imported by it, and its folder's names do not stay on the path."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _called(function: Any, what: str, options: Mapping[str, Any]) -> Any:
    try:
        return function(**options)
    except Exception as error:  # whatever the user's function raises
        raise ConfigError(f"{what} fails: {type(error).__name__}: {first_line(error)}") from None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
