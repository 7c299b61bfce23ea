"""`offramp serve`: one tier in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from offramp.commands.options import Config, Version


def serve(
    tier: Annotated[str, typer.Argument(metavar="TIER", help="Its name in the config.")],
    config: Config,
    with_parent: Annotated[int | None, typer.Option(hidden=True, help="Drain when this process ends.")] = None,
    worker: Annotated[str | None, typer.Option(hidden=True, help="Be a worker of the tier, on this runtime.")] = None,
    version: Version = False,
) -> None:
    """Serve one tier in the foreground; SIGTERM or Ctrl-C drains it."""
    if with_parent is not None:
        from offramp.parent import end_with

        end_with(with_parent)
    from offramp.system import load_system

    system = load_system(config, tier)
    from offramp.roles import serve_tier

    raise typer.Exit(serve_tier(system, tier, worker=worker))
