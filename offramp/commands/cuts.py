"""`offramp cuts`: where a network can be cut, and what each cut costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.commands.options import Json, Version
from offramp.commands.options_build import require

if TYPE_CHECKING:
    from training.cut_list import CutList


def cuts(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="./my_model.py:build, a program saved by torch.export (.pt2), or a recipe (.yaml)."
        ),
    ],
    example: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHAPE", help="What a row is: 3x224x224, or NAME=TYPE[SIZE,...] for each input; else the model's."
        ),
    ] = None,
    max_tensors: Annotated[int, typer.Option(min=1, help="Leave out cuts that more tensors cross.")] = 4,
    json: Json = False,
    version: Version = False,
) -> None:
    """List the legal cuts of a network with FLOPs, parameters and bytes."""
    require("cuts", "torch")
    from training.cut_list import list_cuts

    found = list_cuts(model, Path(), example or [], max_tensors=max_tensors)
    if json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps({"model": model, **asdict(found)}, indent=1))
        return
    from offramp.commands.tables import print_tables

    title = f"{model}: {found.flops:,} FLOPs per row, {found.parameters:,} parameters, {len(found.cuts)} legal cuts"
    print_tables(title, [("", _COLUMNS, [_row(cut) for cut in found.cuts])])
    for line in _remarks(found, max_tensors):
        typer.echo(line)


_COLUMNS = ["cut", "FLOPs before", "FLOPs after", "share", "parameters before", "after", "bytes", "tensors"]


def _row(cut: Any) -> list[str]:
    return [
        cut.name,
        f"{cut.flops_before:,}",
        f"{cut.flops_after:,}",
        f"{100 * cut.share:.1f}%",
        f"{cut.parameters_before:,}",
        f"{cut.parameters_after:,}",
        f"{cut.bytes:,}",
        "\n".join(f"{t.dtype} {'x'.join(map(str, t.shape)) or 'scalar'}" for t in cut.tensors),
    ]


def _remarks(found: CutList, max_tensors: int) -> list[str]:
    lines = ["A cut is named after the module that ends there; bytes are per row, uncoded."]
    if found.closed:
        many = "places are" if len(found.closed) > 1 else "place is"
        lines.append(
            f"{len(found.closed)} {many} closed, such as behind {found.closed[0].name}: {found.closed[0].reason}."
        )
    return lines
