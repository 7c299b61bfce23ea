"""Options of the commands that read a data set."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from common.errors import ConfigError

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="The data set's own files; else they are fetched once and kept in a cache."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Report no progress on stderr.")]
Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of weights and batches, instead of the recipe's.")]
Threads = Annotated[int, typer.Option(min=1, max=256, help="Of torch while it trains.")]


def require(command: str, *packages: str) -> None:
    """Raise ConfigError when a package of the build wing is not installed."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"offramp {command} needs {', '.join(missing)}: install offramp with its extra 'build', "
            "as the README describes."
        )
