"""From a recipe to a bundle: train, export, calibrate, evaluate. Each step can also be taken alone."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from calibration.calibrate import calibrate
from calibration.datasets import Data, Examples, open_data
from calibration.evaluate import evaluate
from calibration.notes import NOTE
from calibration.points import check_points
from common.errors import ConfigError
from training.backbone import check_backbone
from training.baselines import add_baselines, checkpoint_of, planned
from training.cost import costs
from training.curves import draw_curves
from training.export import export
from training.fits import check_data
from training.history import History
from training.keep import keep_as_asked, say_what_does_not_pay
from training.models import make_network, model_files
from training.network import MultiExitNetwork
from training.place import placed
from training.progress import Reporter, progress
from training.recipe import RecipeFile, load_recipe
from training.train import total_steps, train
from training.weights import check_place, load_weights, save_weights

_PACKAGES = ("offramp", "torch", "onnx", "onnxscript", "onnxruntime", "numpy", "zstandard")


def build(
    recipe: Path,
    out: Path,
    data_dir: Path | None = None,
    *,
    weights: Path | None = None,
    seed: int | None = None,
    baselines: bool = False,
    threads: int = 2,
    quiet: bool = False,
) -> dict[str, Any]:
    """Make a bundle: train, export, calibrate, evaluate.

    The bundle appears at `out` once it is complete; a bundle that lies there is replaced then. Until then the state of
    the training lies beside it, as `OUT.checkpoint.npz`: the same call goes on from there after it was cut off.

    Args:
        recipe: YAML file.
        out: directory to make.
        data_dir: see `calibration.datasets.open_data`.
        weights: file of `train_weights`, instead of training.
        seed: of weights and batches, instead of the recipe's.
        baselines: also train networks without exits, and put them beside the bundle.
        threads: of torch while training; evaluation always takes one.
        quiet: report nothing but notes on stderr.

    Returns:
        What `evaluate` returns.

    Raises:
        ConfigError: when recipe, data or `out` are wrong.
        BundleError: when the network cannot be packed.
    """
    out = Path(os.path.abspath(out))
    if not out.name:
        raise ConfigError(f"{out} cannot be a bundle. --out takes the path of a folder that is to be made.")
    source = _with_seed(load_recipe(recipe), seed)
    data = _checked_data(source, data_dir, quiet)
    official = data.train
    kept = out.with_name(f"{out.name}.checkpoint.npz")
    plan = planned(source, data) if baselines else []
    with placed(out) as root:
        if weights is None:
            network, history = _trained(source, data, threads, quiet, kept)
        else:
            network = make_network(source, official)
            history = load_weights(weights, network, source.recipe)
        with progress("place exits", 0, quiet=quiet) as report:
            network, kept_recipe = keep_as_asked(network, source.recipe, official, report.line)
            source = replace(source, recipe=kept_recipe)
        draw_curves(history, root / "training.png", title=source.recipe.name)
        provenance = _provenance(source, official, history)
        export(network, root, name=source.recipe.name, cuts=source.recipe.cuts, provenance=provenance)
        with progress("calibrate", 0, quiet=quiet) as report:
            calibrate(root, data=data, report=report.line)
            say_what_does_not_pay(network, root, source.recipe, official, report.line)
        if plan:
            add_baselines(data, root, plan, kept=out, threads=threads, quiet=quiet)
        with progress("evaluate", 0, quiet=quiet) as report:
            result = evaluate(root, data=data, plot=root / "evaluation.png", write=True, report=report.line)
    for file in ([kept] if weights is None else []) + [checkpoint_of(one, out) for one in plan]:
        file.unlink(missing_ok=True)
    return result


def train_weights(
    recipe: Path,
    out: Path,
    data_dir: Path | None = None,
    *,
    seed: int | None = None,
    threads: int = 2,
    quiet: bool = False,
) -> History:
    """Train only, and write the weights of the best epoch to a numpy archive (.npz); arguments as `build`.

    The learning curves lie beside it as a PNG, and until it is there the state of the training, as with `build`.
    """
    check_place(out)
    source = _with_seed(load_recipe(recipe), seed)
    kept = out.with_suffix(".checkpoint.npz")
    network, history = _trained(source, _checked_data(source, data_dir, quiet), threads, quiet, kept)
    save_weights(out, network, source.recipe, history)
    draw_curves(history, out.with_suffix(".png"), title=source.recipe.name)
    kept.unlink(missing_ok=True)
    return history


def _checked_data(source: RecipeFile, data_dir: Path | None, quiet: bool) -> Data:
    """The recipe's data, looked at before anything is trained."""
    data = open_data(source.recipe.data, data_dir, source.folder)
    data.check()
    with progress("data", 0, quiet=quiet) as report:
        rows = ", ".join(f"{name} {count:,}" for name, count in data.describe().items())
        report.line(f"rows of {source.recipe.data.dataset}: {rows}")
    return data


def _trained(source: RecipeFile, data: Data, threads: int, quiet: bool, kept: Path) -> tuple[MultiExitNetwork, History]:
    settings = source.recipe.training
    network = make_network(source, data.train)
    check_data(network, data, settings)
    check_points(source.recipe.calibration.all_points(), costs(network).leaving())
    splits = data.splits
    steps = total_steps(network, splits.train, settings)
    with progress(f"train {source.recipe.name}", steps, quiet=quiet) as report:
        if network.gates and source.recipe.calibration.criterion != "gate":
            report.line(f"{NOTE}the gates are trained and not asked, unless calibration.criterion is gate")
        known, asked = len(network.classes), int(splits.train.labels_N.max()) + 1
        if known > asked:
            report.line(f"{NOTE}the network answers one of {known} classes, and the rows have labels 0 to {asked - 1}")
        check_backbone(network, source.recipe, splits.validation, report)
        history = train(
            network, splits.train, splits.validation, settings, threads=threads, report=report, checkpoint=kept
        )
        _say_if_nothing_was_learned(history, splits.validation, report)
    return network, history


def _say_if_nothing_was_learned(history: History, validation: Examples, report: Reporter) -> None:
    """A note where the last exit is hardly better than naming the most frequent class: within two standard errors."""
    right = history.best.accuracy[-1]
    most = float(np.bincount(validation.labels_N).max()) / len(validation)
    if right <= most + 2.0 * math.sqrt(most * (1.0 - most) / len(validation)):
        report.line(
            f"{NOTE}the last exit is right on {100 * right:.1f} % of the validation rows, hardly more than who always "
            f"names the most frequent class ({100 * most:.1f} %)"
        )


def _with_seed(source: RecipeFile, seed: int | None) -> RecipeFile:
    if seed is None:
        return source
    if seed < 0:
        raise ConfigError(f"The seed is {seed}. It must be a whole number from 0.")
    training = source.recipe.training.model_copy(update={"seed": seed})
    return replace(source, recipe=source.recipe.model_copy(update={"training": training}))


def _provenance(source: RecipeFile, official: Examples, history: History) -> dict[str, Any]:
    """Where a bundle comes from; nothing in it names a machine or a moment."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "recipe": source.recipe.model_dump(mode="json"),
        "recipe_sha256": source.sha256,
        **model_files(source),
        "data": {"train_sha256": dict(official.sha256), "train_rows": len(official)},
        "versions": versions,
        "training": {
            "epochs": len(history.epochs),
            "best_epoch": history.best.number,
            "validation_accuracy": [round(a, 6) for a in history.best.accuracy],
        },
    }
