"""`offramp calibrate`: the calibration step alone, on a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.errors import ConfigError
from offramp.commands.options import Json, Version
from offramp.commands.options_build import DataDir, Quiet
from offramp.commands.options_guarantee import Delta, Epsilon, PointName, RiskName, Source, wanted_guarantee


def calibrate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's directory; its manifest is replaced.")],
    data_dir: DataDir = None,
    criterion: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="max-probability, entropy, margin, patience or gate, instead of the recipe's."
        ),
    ] = None,
    target_drop: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Accuracy that the default operating point may give up, such as 0.001."),
    ] = None,
    combine: Annotated[
        str | None,
        typer.Option(metavar="WHICH", help="none, early or all: exits that answer together with those before them."),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="Operating points to make, instead of the recipe's."),
    ] = None,
    epsilon: Epsilon = None,
    delta: Delta = None,
    risk: RiskName = None,
    name: PointName = None,
    source: Source = None,
    choose_codecs: Annotated[
        bool, typer.Option("--choose-codecs", help="Pick each tensor's codec anew, whatever the recipe says.")
    ] = False,
    runtime: Annotated[str, typer.Option(help="What runs the stages.")] = "onnxruntime",
    threads: Annotated[int, typer.Option(min=1, max=256, help="Of the runtime.")] = 1,
    quiet: Quiet = False,
    json: Json = False,
    version: Version = False,
) -> None:
    """Fit code ranges, temperatures and thresholds anew; the bundle gets a new digest.

    With --epsilon, one more operating point carries a certificate: see docs/guarantees.md. With --from as well,
    nothing is fitted and no data are read: the thresholds come from a certificate that is there.
    """
    from calibration.calibrate import calibrate as fit
    from calibration.calibrate import load_points
    from calibration.later import add_later
    from calibration.notes import NOTE

    def report(text: str) -> None:
        if not quiet or text.startswith(NOTE):
            typer.echo(text, err=True)

    guarantee = wanted_guarantee(epsilon, delta, risk, name)
    if source is not None:
        if guarantee is None:
            raise ConfigError("--from takes thresholds for another --epsilon. Give one.")
        digest = add_later(bundle, source, guarantee)
    else:
        digest = fit(
            bundle,
            data_dir,
            criterion=criterion,
            combine=combine,
            points=None if points is None else load_points(points),
            target_drop=target_drop,
            guarantee=guarantee,
            choose_codecs=choose_codecs,
            runtime=runtime,
            threads=threads,
            report=report,
        )
    if json:
        from json import dumps

        typer.echo(dumps({"bundle": str(bundle), "digest": digest}))
    else:
        typer.echo(f"{bundle} now has digest {digest}.")
