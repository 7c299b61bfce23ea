"""`offramp evaluate`: measure a bundle on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from offramp.commands.options import Json, Version
from offramp.commands.options_build import DataDir, Quiet, require


def evaluate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's directory.")],
    data_dir: DataDir = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Where to draw accuracy against cost.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put evaluation.json and README.md into the bundle.")] = False,
    runtime: Annotated[
        str | None, typer.Option(help="What runs the stages, instead of what it was calibrated with.")
    ] = None,
    latency_rows: Annotated[
        int | None,
        typer.Option(min=0, help="Rows whose time is taken; 0 takes none. Left out, all, or two minutes' worth."),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
    version: Version = False,
) -> None:
    """Measure every exit and every operating point on the test split, as the bundle will be served."""
    if plot is not None:
        require("evaluate --plot", "matplotlib")
    from calibration.evaluate import evaluate as measure

    def report(text: str) -> None:
        if not quiet:
            typer.echo(text, err=True)

    show(
        measure(bundle, data_dir, plot=plot, write=write, latency_rows=latency_rows, runtime=runtime, report=report),
        json,
    )


def show(result: dict[str, Any], json: bool) -> None:
    """Print an evaluation as tables, or as one JSON document."""
    if json:
        from json import dumps

        typer.echo(dumps(result, indent=1, allow_nan=False))
        return
    from offramp.commands.evaluation_tables import evaluation_tables
    from offramp.commands.tables import print_tables

    title = f"{result['bundle']}  {result['digest']}\n{result['n']} rows of the {result['split']} split"
    print_tables(title, evaluation_tables(result))
    for name, why in result["left_out"].items():
        typer.echo(f"Baseline {name} is left out: {why}")
