"""Evaluate a bundle on the test split, from the bundle as it will be served, beside what it is held against."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from calibration.baselines import Baseline, derived, each_baseline, rivals, stored
from calibration.card import model_card
from calibration.datasets import Data, Examples, open_data
from calibration.document import check_same_rows, recipe_section
from calibration.exit_figures import each_exit, each_point, rights, taken
from calibration.guarantee import Split, kept
from calibration.hindsight import oracle, overthinking
from calibration.latency import contenders, measure_latency
from calibration.plot import draw
from calibration.served import Said, Served
from calibration.settings import DataSettings
from calibration.sizes import forwarded_bytes
from calibration.sweep import sweep
from calibration.thresholds import exit_flops
from common.bundle import Bundle
from common.errors import ConfigError
from common.runtimes import configured
from common.types import Tensors


def evaluate(
    bundle_dir: Path,
    data_dir: Path | None = None,
    *,
    plot: Path | None = None,
    write: bool = False,
    latency_rows: int | None = None,
    runtime: str | None = None,
    data: Data | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure every exit, every operating point and every baseline on the test split; nothing is chosen by it.

    Args:
        bundle_dir: the bundle.
        data_dir: see `calibration.datasets.open_data`. Test rows are looked at; train rows only where the network has
            convolutions and the package onnx is here, for the tune rows that scales of the int8 baseline are fixed on.
        plot: where to draw accuracy against cost, a PNG file; reliability diagrams are put beside it.
        write: put `evaluation.json` and the model card `README.md` into the bundle.
        latency_rows: test rows whose time is taken; 0 takes none, None all, or as many as two minutes allow.
        runtime: of the stages; None: what operating point `default` was calibrated with.
        data: the data that the bundle's provenance names, where they are open already.
        report: takes one line per result.

    Returns:
        A JSON document; `docs/evaluation.md` describes its keys.

    Raises:
        BundleError: when the bundle or a baseline beside it is damaged, or the bundle carries no recipe.
        ConfigError: when the data do not fit, or a plot cannot be drawn.
    """
    if plot is not None and not plot.absolute().parent.is_dir():
        raise ConfigError(f"{plot} cannot be written: there is no folder {plot.parent}.")
    bundle = Bundle(bundle_dir)
    manifest = bundle.manifest
    rows = data or open_data(recipe_section(bundle, "data", DataSettings), data_dir)
    if rows.draws:  # the test rows were set aside from the train files
        check_same_rows(bundle, rows.train.sha256, "test")
    test = rows.test
    served = Served(bundle, runtime=runtime or configured(manifest.operating_points["default"].configuration))
    said = served.says(test)
    right_EN = rights(said, test.labels_N)
    own, left_out = derived(bundle, lambda: _tune_inputs(served, rows))
    baselines = [*own, *stored(bundle)]
    result: dict[str, Any] = {
        "bundle": manifest.name,
        "digest": bundle.digest,
        "split": "test",
        "n": len(test),
        "data_sha256": dict(test.sha256),
        "configuration": served.configuration(),
        "exits": each_exit(manifest, said, test.labels_N),
        "operating_points": each_point(manifest, said, test.labels_N),
        "overthinking": overthinking(right_EN),
        "oracle": oracle(right_EN, exit_flops(manifest)),
        **_against(served, test, said, baselines, latency_rows),
        "left_out": left_out,
    }
    if guarantees := kept(served, Split(examples=test, said=said)):
        result["guarantees"] = guarantees
    _report(result, report)
    if plot is not None:
        draw(result, sweep(manifest, said, test.labels_N), plot)
    if write:
        _write(bundle.root / "evaluation.json", json.dumps(result, indent=1) + "\n")
        _write(bundle.root / "README.md", model_card(bundle, result))
    return result


def _against(
    served: Served, test: Examples, said: Said, baselines: list[Baseline], latency_rows: int | None
) -> dict[str, Any]:
    """Bytes and times of the bundle, and its baselines."""
    manifest = served.manifest
    points = {name: taken(manifest, point, said, test.labels_N) for name, point in manifest.operating_points.items()}
    found: dict[str, Any] = {
        "forwarded_bytes": forwarded_bytes(served, test, points["default"].exits_N),
        "baselines": each_baseline(baselines, served.inputs(test), test.labels_N, points),
    }
    if latency_rows == 0:
        return found
    runs = contenders(served)
    own = list(runs)
    runs |= {f"baseline {one.name}": _fresh(one) for one in baselines}
    times = measure_latency(runs, served, test, latency_rows)
    found["latency"] = {name: times[name] for name in own}
    for entry in found["baselines"]:
        entry["latency"] = times[f"baseline {entry['name']}"]
    found["as_accurate"] = rivals(found["baselines"], list(points), found["latency"])
    return found


def _fresh(baseline: Baseline) -> Callable[[], Callable[[Tensors], object]]:
    return lambda: baseline.load().run


def _tune_inputs(served: Served, data: Data) -> Tensors:
    """Only for the scales of the int8 baseline."""
    return served.inputs(data.splits.tune)


def _report(result: Mapping[str, Any], report: Callable[[str], None]) -> None:
    for name, point in result["operating_points"].items():
        rates = " / ".join(f"{100 * rate:.1f}" for rate in point["exit_rates"])
        report(
            f"test, {name}: accuracy {100 * point['accuracy']:.2f} %, exits {rates} %, "
            f"{point['mean_flops'] / 1e6:.2f} MFLOPs"
        )
    for name, why in result["left_out"].items():
        report(f"baseline {name} is left out: {why}")


def _write(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
