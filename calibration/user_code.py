"""Functions in the user's own Python files. What they raise becomes one sentence that names file and line."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from common.errors import ConfigError


def load_module(path: Path) -> ModuleType:
    """Import a file under a name of its own; files beside it may be imported by it.

    Raises:
        ConfigError: when there is no such file, or importing it fails.
    """
    if not path.is_file():
        raise ConfigError(f"{path} cannot be read: there is no such file.")
    name = f"offramp_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses of the user's own look their module up
    with _beside(path):
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:  # whatever the user's file raises
            del sys.modules[name]
            raise ConfigError(f"{path} cannot be imported: {said(error, path)}") from None
    return module


def function_in(module: ModuleType, path: Path, name: str) -> Callable[..., Any]:
    """A function of a file.

    Raises:
        ConfigError: when it has none of that name, with the nearest one.
    """
    function = getattr(module, name, None)
    if callable(function):
        return function  # type: ignore[no-any-return]
    names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{path} has no function {name!r}.{hint}")


def called(function: Callable[..., Any], path: Path, what: str, options: Mapping[str, Any]) -> Any:
    """What a function returns.

    Raises:
        ConfigError: when it raises.
    """
    with _beside(path):
        try:
            return function(**options)
        except (Exception, SystemExit) as error:  # whatever the user's function raises
            raise ConfigError(f"{what} fails: {said(error, path)}") from None


def said(error: BaseException, path: Path) -> str:
    """Type and first line of an error, and the last line of the user's code that led to it."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
    folder = path.resolve().parent
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{type(error).__name__}: {error.msg} ({_short(error.filename, folder)}, line {error.lineno})."
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename, folder)]
    where = f" ({_short(own[-1].filename, folder)}, line {own[-1].lineno})" if own else ""
    return f"{text.rstrip('.')}{where}."


def _is_own(filename: str, folder: Path) -> bool:
    path = Path(filename).resolve()
    return path.is_relative_to(folder) and "site-packages" not in path.parts


def _short(filename: str, folder: Path) -> str:
    path = Path(filename).resolve()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Files beside the user's may be imported by it, and its folder's names do not stay on the path."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
