"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.version import VERSION


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"offramp {VERSION}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Config = Annotated[Path, typer.Option("--config", metavar="FILE", help="The tier-splitting config, tiers.yaml.")]
Url = Annotated[str, typer.Option("--url", metavar="URL", help="Where a tier's REST door listens.")]

DEFAULT_URL = "http://127.0.0.1:8000"
