"""`offramp up`: every tier on this machine, one process each."""

from __future__ import annotations

from typing import Annotated

import typer

from offramp.commands.options import Config, Version


def up(
    config: Config,
    start_seconds: Annotated[float, typer.Option(min=0.1, help="Longest wait until a tier is ready.")] = 30.0,
    version: Version = False,
) -> None:
    """Start every tier on this machine, one process each; one Ctrl-C stops them all."""
    import asyncio

    from offramp.supervisor import Supervisor
    from offramp.system import load_system

    raise typer.Exit(asyncio.run(Supervisor(load_system(config), start_seconds).run()))
