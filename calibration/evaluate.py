"""Evaluate a bundle on the official test split, from the bundle as it will be served."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from calibration.card import model_card
from calibration.datasets import load_test
from calibration.document import recipe_section
from calibration.guarantee import Split, kept
from calibration.latency import measure_latency
from calibration.plot import draw
from calibration.served import Said, Served
from calibration.settings import DataSettings
from calibration.sizes import forwarded_bytes
from calibration.sweep import sweep
from calibration.thresholds import ExitScores, criterion_named, exit_flops, exits_taken, outcome
from common.bundle import Bundle
from common.runtimes import configured
from common.types import Array

_LATENCY_ROWS = 1000


def evaluate(
    bundle_dir: Path,
    data_dir: Path | None = None,
    *,
    plot: Path | None = None,
    write: bool = False,
    latency_rows: int = _LATENCY_ROWS,
    runtime: str | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure every exit and every operating point on the test split; thresholds are taken as they are.

    Args:
        bundle_dir: the bundle.
        data_dir: see `calibration.datasets.load_train`; only test files are opened.
        plot: where to draw accuracy against cost, a PNG file.
        write: put `evaluation.json` and the model card `README.md` into the bundle.
        latency_rows: test rows whose time is taken, one at a time; 0 takes none.
        runtime: of the stages; None: what operating point `default` was calibrated with.
        report: takes one line per result.

    Returns:
        A JSON document; `docs/bundle.md` describes its keys.

    Raises:
        BundleError: when the bundle is damaged or carries no recipe.
        ConfigError: when the data do not fit, or the plot cannot be drawn.
    """
    bundle = Bundle(bundle_dir)
    test = load_test(recipe_section(bundle, "data", DataSettings), data_dir)
    point = bundle.manifest.operating_points["default"]
    served = Served(bundle, runtime=runtime or configured(point.configuration))
    said = served.says(test)
    logits = list(said.logits)
    flops_E = exit_flops(bundle.manifest)
    result: dict[str, Any] = {
        "bundle": bundle.manifest.name,
        "digest": bundle.digest,
        "split": "test",
        "n": len(test),
        "data_sha256": dict(test.sha256),
        "configuration": served.configuration(),
        "exits": _exits(logits, test.labels_N, flops_E),
        "operating_points": _points(bundle, said, test.labels_N, flops_E),
        "forwarded_bytes": forwarded_bytes(served, test, _taken(bundle, said)),
    }
    if latency_rows:
        result["latency"] = measure_latency(served, test, latency_rows)
    if guarantees := kept(served, Split(examples=test, said=said)):
        result["guarantees"] = guarantees
    for name, point in result["operating_points"].items():
        rates = " / ".join(f"{100 * rate:.1f}" for rate in point["exit_rates"])
        report(
            f"test, {name}: accuracy {100 * point['accuracy']:.2f} %, exits {rates} %, "
            f"{point['mean_flops'] / 1e6:.2f} MFLOPs"
        )
    if plot is not None:
        draw(result, sweep(bundle.manifest, said, test.labels_N), plot)
    if write:
        _write(bundle.root / "evaluation.json", json.dumps(result, indent=1) + "\n")
        _write(bundle.root / "README.md", model_card(bundle, result))
    return result


def _exits(logits: list[Array], labels_N: Array, flops_E: Array) -> list[dict[str, Any]]:
    """Every exit alone, as if it answered every row."""
    return [
        {"exit": number, "accuracy": float((logits_NC.argmax(axis=1) == labels_N).mean()), "flops": float(flops)}
        for number, (logits_NC, flops) in enumerate(zip(logits, flops_E, strict=True))
    ]


def _points(bundle: Bundle, said: Said, labels_N: Array, flops_E: Array) -> dict[str, Any]:
    last = float((said.logits[-1].argmax(axis=1) == labels_N).mean())
    points: dict[str, Any] = {}
    for name, point in bundle.manifest.operating_points.items():
        criterion = criterion_named(point.criterion)
        scores = ExitScores.of(said, bundle.manifest, criterion)
        found = outcome(scores, labels_N, criterion, point.thresholds, flops_E)
        points[name] = {
            "accuracy": found.accuracy,
            "drop": last - found.accuracy,
            "exit_rates": list(found.exit_rates),
            "exit_accuracy": list(found.exit_accuracy),
            "mean_flops": found.mean_flops,
        }
    return points


def _taken(bundle: Bundle, said: Said) -> Array:
    """The exit that each row takes at operating point `default`, [N]."""
    point = bundle.manifest.operating_points["default"]
    criterion = criterion_named(point.criterion)
    return exits_taken(criterion, ExitScores.of(said, bundle.manifest, criterion).scores_EN, point.thresholds)


def _write(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def rows_of(result: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Operating points of an evaluation, cheapest first."""
    return sorted(result["operating_points"].items(), key=lambda item: float(item[1]["mean_flops"]))
