"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

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
OperatingPoint = Annotated[str | None, typer.Option(metavar="NAME", help="Ask for this operating point.")]
TimeoutMs = Annotated[float | None, typer.Option(min=0.001, help="Ask for an answer within this time.")]

DEFAULT_URL = "http://127.0.0.1:8000"


def query_of(operating_point: str | None, timeout_ms: float | None) -> str:
    """The query string that asks a REST door for these options."""
    given = {"operating_point": operating_point, "timeout_ms": timeout_ms}
    wanted = {key: value for key, value in given.items() if value is not None}
    return "?" + urlencode(wanted) if wanted else ""
