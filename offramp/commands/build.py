"""`offramp build` and `offramp train`: from a recipe to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.commands.options import Json, Version
from offramp.commands.options_build import DataDir, Quiet, Recipe, Seed, Threads, require

_TORCH = ("torch", "onnx", "onnxscript", "matplotlib")


def build(
    recipe: Recipe,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the bundle is put; one that is there is replaced.")],
    data_dir: DataDir = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Weights from `offramp train`, instead of training.")
    ] = None,
    seed: Seed = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also train networks without exits, to compare with.")
    ] = False,
    threads: Threads = 2,
    quiet: Quiet = False,
    json: Json = False,
    version: Version = False,
) -> None:
    """Train, export, calibrate and evaluate a network; the result is a bundle."""
    require("build", *_TORCH)
    from offramp.commands.evaluate import show
    from training.build import build as make

    result = make(recipe, out, data_dir, weights=weights, seed=seed, baselines=baselines, threads=threads, quiet=quiet)
    show(result, json)


def train(
    recipe: Recipe,
    out: Annotated[Path, typer.Option(metavar="FILE.npz", help="Where the weights of the best epoch are put.")],
    data_dir: DataDir = None,
    seed: Seed = None,
    threads: Threads = 2,
    quiet: Quiet = False,
    version: Version = False,
) -> None:
    """Take the first step of `offramp build` alone; `build --weights` takes the others."""
    require("train", *_TORCH)
    from training.build import train_weights

    best = train_weights(recipe, out, data_dir, seed=seed, threads=threads, quiet=quiet).best
    accuracies = ", ".join(f"{accuracy:.2%}" for accuracy in best.accuracy)
    typer.echo(f"{out}: weights of epoch {best.number}; accuracy of the exits on the validation split: {accuracies}.")
