"""`offramp evaluate`: measure a bundle on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from offramp.commands.options import Json, Version
from offramp.commands.options_build import DataDir, Quiet, require

Table = tuple[str, list[str], list[list[str]]]


def evaluate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's directory.")],
    data_dir: DataDir = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Where to draw accuracy against cost.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put evaluation.json and README.md into the bundle.")] = False,
    runtime: Annotated[
        str | None, typer.Option(help="What runs the stages, instead of what it was calibrated with.")
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

    show(measure(bundle, data_dir, plot=plot, write=write, runtime=runtime, report=report), json)


def show(result: dict[str, Any], json: bool) -> None:
    """Print an evaluation as tables, or as one JSON document."""
    if json:
        from json import dumps

        typer.echo(dumps(result, indent=1, allow_nan=False))
        return
    from offramp.commands.tables import print_tables

    title = f"{result['bundle']}  {result['digest']}\n{result['n']} rows of the {result['split']} split"
    print_tables(title, [_exits(result), _points(result), _guarantees(result), _bytes(result), _latency(result)])


def _exits(result: dict[str, Any]) -> Table:
    rows = [[str(e["exit"]), f"{e['accuracy']:.2%}", f"{e['flops']:,.0f}"] for e in result["exits"]]
    return ("Each exit alone", ["exit", "accuracy", "FLOPs"], rows)


def _points(result: dict[str, Any]) -> Table:
    rows = [
        [
            name,
            f"{point['accuracy']:.2%}",
            f"{100 * point['drop']:.2f}",
            ", ".join(f"{rate:.1%}" for rate in point["exit_rates"]),
            f"{point['mean_flops']:,.0f}",
        ]
        for name, point in result["operating_points"].items()
    ]
    return ("Operating points", ["name", "accuracy", "drop in points", "exit rates", "mean FLOPs"], rows)


def _guarantees(result: dict[str, Any]) -> Table:
    rows = [
        [name, entry["risk"], f"{entry['epsilon']:.2%}", f"{entry['delta']:g}", f"{entry['mean_loss']:.2%}"]
        for name, entry in result.get("guarantees", {}).items()
    ]
    return ("Guarantees", ["name", "mean", "at most", "wrong with probability", "here"], rows)


def _bytes(result: dict[str, Any]) -> Table:
    rows = [
        [f"{cut['cut']} | {cut['cut'] + 1}", str(cut["rows"]), *(_size(cut[key]) for key in _SIZES)]
        for cut in result["forwarded_bytes"]
    ]
    columns = ["between", "rows", "coded", "uncoded", "the input itself", "the input with zlib"]
    return ("Forwarded at the default operating point, mean bytes per row", columns, rows)


_SIZES = ("coded", "uncoded", "input", "input_zlib")


def _size(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _latency(result: dict[str, Any]) -> Table:
    rows = [
        [name, *(f"{values[key]:.0f}" for key in ("mean_us", "p50_us", "p95_us", "p99_us")), f"{values['speedup']:.2f}"]
        for name, values in result.get("latency", {}).items()
    ]
    columns = ["what", "mean", "p50", "p95", "p99", "times as fast as without exits"]
    return ("Latency in microseconds, one row at a time, no network", columns, rows)
