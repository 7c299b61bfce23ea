"""`offramp inspect`: verify a bundle and show what it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from offramp.commands.options import Json, Version


def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's directory.")],
    json: Json = False,
    version: Version = False,
) -> None:
    """Verify a bundle's hashes and schema, and show stages, cuts, exits and operating points."""
    from offramp.bundles import load_bundle
    from offramp.inspection import describe

    document = describe(load_bundle(bundle))
    if json:
        from json import dumps

        typer.echo(dumps(document, indent=1))
        return
    from offramp.commands.tables import print_tables

    print_tables(f"{document['bundle']}  {document['digest']}", _tables(document))
    typer.echo("Every file matches its hash in manifest.json.")


def _tables(document: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    stages = [
        [
            str(stage["stage"]),
            stage["file"],
            _shapes(stage["reads"]),
            _shapes(stage["writes"]),
            f"{stage['flops']:,}",
            f"{stage['parameters']:,}",
            f"{stage['bytes']:,}",
            _or_dash(stage["exit"]),
        ]
        for stage in document["stages"]
    ]
    cuts = [
        [
            f"{cut['cut']} | {cut['cut'] + 1}",
            _shapes(cut["tensors"]),
            "the input itself"
            if cut["forward"] == "input"
            else ", ".join(dict.fromkeys(_codec(tensor) for tensor in cut["tensors"])),
            _or_dash(cut["raw_bytes"]),
            "-" if cut["forward"] == "input" else _or_dash(cut["coded_bytes_at_most"]),
        ]
        for cut in document["cuts"]
    ]
    exits = [
        [str(leave["exit"]), str(leave["stage"]), f"{leave['temperature']:.4g}", leave["gate"] or "-", _weights(leave)]
        for leave in document["exits"]
    ]
    points = [
        [
            name,
            _criterion(point),
            ", ".join("never" if t is None else f"{t:.4g}" for t in point["thresholds"]),
            *_measured(point),
            _guaranteed(point),
        ]
        for name, point in document["operating_points"].items()
    ]
    return [
        ("Stages", ["stage", "file", "reads", "writes", "FLOPs", "parameters", "file bytes", "exit"], stages),
        ("Cuts, bytes per row", ["between", "tensors", "codec", "raw", "coded at most"], cuts),
        ("Exits", ["exit", "after stage", "temperature", "gate", "weights together"], exits),
        ("Operating points", ["name", "criterion", "thresholds", "accuracy", "exit rates", "guarantee"], points),
    ]


def _weights(leave: dict[str, Any]) -> str:
    return "-" if leave["combine"] is None else ", ".join(f"{w:.3g}" for w in leave["combine"]["weights"])


def _criterion(point: dict[str, Any]) -> str:
    together = {"none": "", "early": ", early exits together", "all": ", exits together"}
    return f"{point['criterion']}{' (fitted)' if point['gates'] else ''}{together[point['combine']]}"


def _shapes(tensors: list[dict[str, Any]]) -> str:
    return "\n".join(f"{t['name']} {t['dtype']} {'x'.join(map(str, t['shape'])) or 'scalar'}" for t in tensors)


def _codec(tensor: dict[str, Any]) -> str:
    return str(tensor["codec"]) if tensor["compression"] == "none" else f"{tensor['codec']} + {tensor['compression']}"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _measured(point: dict[str, Any]) -> list[str]:
    measured = point["measured"] or {}
    accuracy, rates = measured.get("accuracy"), measured.get("exit_rates")
    return [
        f"{accuracy:.2%}" if isinstance(accuracy, float) else "-",
        ", ".join(f"{rate:.1%}" for rate in rates) if isinstance(rates, list) else "-",
    ]


def _guaranteed(point: dict[str, Any]) -> str:
    paper = point["guarantee"] or {}
    if not paper.get("certified"):
        return "-"
    return f"{paper.get('risk')} at most {paper.get('epsilon'):.2%}"
