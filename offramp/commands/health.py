"""`offramp health`: exit status 0 when a tier is ready, else 1."""

from __future__ import annotations

from typing import Annotated

import typer

from offramp.commands.options import Json, Version


def health(
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS", help="host:port of any door (HTTP is tried first), http://host:port or grpc://host:port."
        ),
    ],
    timeout: Annotated[float, typer.Option(min=0.01, metavar="SECONDS", help="Longest wait for an answer.")] = 2.0,
    json: Json = False,
    version: Version = False,
) -> None:
    """Ask whether a tier is ready; the exit status is 0 or 1, for container probes."""
    from offramp.probe import parse_target, probe

    scheme, target = parse_target(address)
    found = probe(scheme, target, timeout)
    if json:
        from json import dumps

        typer.echo(dumps({"address": address, "ready": found.ready, "detail": found.detail}))
    else:
        typer.echo(f"{address} is {'ready' if found.ready else 'not ready'}: {found.detail}.", err=not found.ready)
    raise typer.Exit(0 if found.ready else 1)
