"""Calibrate a bundle: ranges of the codecs, a temperature per exit, thresholds per operating point.

Only the official train split is opened, and of it only the parts that nothing was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from calibration.codecs import choose_cut, cut_bytes, input_bytes
from calibration.datasets import Examples, divide, load_train
from calibration.document import described, load_document, recipe_section, thresholds_json, write_codes
from calibration.guarantee import Split, guaranteed_point
from calibration.ranges import fit_cut
from calibration.served import Served
from calibration.settings import CalibrationSettings, CutSettings, DataSettings, GuaranteeSettings
from calibration.temperature import fit_temperature
from calibration.thresholds import ExitScores, choose, criterion_named, exit_flops, outcome
from common.bundle import Bundle, write_manifest
from common.errors import ConfigError
from common.manifest import CutTensor, Manifest
from common.rule import Rule


def calibrate(
    bundle_dir: Path,
    data_dir: Path | None = None,
    *,
    criterion: str | None = None,
    target_drop: float | None = None,
    guarantee: GuaranteeSettings | None = None,
    choose_codecs: bool = False,
    runtime: str = "onnxruntime",
    threads: int = 1,
    report: Callable[[str], None] = lambda text: None,
) -> str:
    """Calibrate a bundle and replace its manifest in one step; nothing changes when anything fails.

    Args:
        bundle_dir: the bundle; its provenance says which data and which settings.
        data_dir: see `calibration.datasets.load_train`.
        criterion: instead of the recipe's.
        target_drop: instead of the recipe's.
        guarantee: instead of the recipe's; None leaves it to the recipe.
        choose_codecs: pick codecs anew even where the recipe fixes them.
        runtime: the stages' runtime; what is measured holds for it.
        threads: inside one runtime call.
        report: takes one line per step.

    Returns:
        The bundle's new digest.

    Raises:
        BundleError: when the bundle is damaged or carries no recipe.
        ConfigError: when data or settings do not fit.
    """
    bundle = Bundle(bundle_dir)
    data = recipe_section(bundle, "data", DataSettings)
    cuts = recipe_section(bundle, "cuts", CutSettings)
    if choose_codecs:
        cuts = cuts.model_copy(update={"choose": True})
    settings = _settings(bundle, criterion, target_drop, guarantee)
    official = load_train(data, data_dir)
    _same_data(bundle, official)
    splits = divide(official, data)
    served = Served(bundle, runtime=runtime, threads=threads)

    served.manifest = _with_codes(served, splits.tune, cuts, report)
    tune = served.says(splits.tune)
    temperatures = [fit_temperature(logits_NC, splits.tune.labels_N) for logits_NC in tune.logits]
    report("temperatures " + " ".join(f"{t:.3f}" for t in temperatures))
    exits = tuple(replace(e, temperature=round(t, 6)) for e, t in zip(served.manifest.exits, temperatures, strict=True))
    served.manifest = replace(served.manifest, exits=exits)

    seen = Split(examples=splits.tune, said=tune)
    held_out = Split(examples=splits.calibration, said=served.says(splits.calibration))
    points = _points(served, seen, held_out, settings, report)
    if settings.guarantee is not None:
        rule = Rule(criterion_named(settings.criterion), served.manifest.exits, len(served.manifest.classes))
        points[settings.guarantee.name] = guaranteed_point(served, rule, settings.guarantee, seen, held_out, report)
    document = load_document(bundle)
    write_codes(document, served.manifest)
    for entry, leave in zip(document["exits"], served.manifest.exits, strict=True):
        entry["temperature"] = leave.temperature
    document["operating_points"] = points
    document["provenance"]["calibration"] = settings.model_dump()
    return write_manifest(bundle.root, document)


def _settings(
    bundle: Bundle, criterion: str | None, target_drop: float | None, guarantee: GuaranteeSettings | None
) -> CalibrationSettings:
    settings = recipe_section(bundle, "calibration", CalibrationSettings).model_dump()
    if criterion is not None:
        settings["criterion"] = criterion_named(criterion).name
    if target_drop is not None:
        if not 0.0 <= target_drop < 1.0:
            raise ConfigError(f"The target drop is {target_drop}. It must be a share of rows from 0 to below 1.")
        settings["target_drop"] = target_drop
    if guarantee is not None:
        settings["guarantee"] = guarantee
    return CalibrationSettings(**settings)


def _same_data(bundle: Bundle, official: Examples) -> None:
    """The splits are row numbers: with other files, rows that the network was trained on would be used."""
    recorded = bundle.manifest.provenance.get("data", {}).get("train_sha256")
    if recorded is not None and recorded != dict(official.sha256):
        raise ConfigError(
            "The train files differ from those that the bundle was trained on, so its calibration rows are unknown."
        )


def _with_codes(served: Served, tune: Examples, cuts: CutSettings, report: Callable[[str], None]) -> Manifest:
    """Fit cut after cut, each on what the fitted ones before it let through."""
    inputs = served.inputs(tune)
    live = inputs
    compression, smallest = input_bytes(served, inputs) if cuts.forward == "auto" else ("none", math.inf)
    codes = tuple(CutTensor(name=name, compression=compression) for name in served.manifest.inputs)
    served.manifest = replace(served.manifest, input_codes=codes, input_cuts=frozenset())
    for number in range(len(served.manifest.cuts)):
        live = {**live, **served.run_stage(number, live)}
        if cuts.choose:
            fitted = choose_cut(served, number, live, tune.labels_N, cuts, report)
        else:
            fitted = fit_cut(served, number, live, tune.labels_N, loss=cuts.loss)
        done = served.manifest.cuts
        served.manifest = replace(served.manifest, cuts=(*done[:number], fitted, *done[number + 1 :]))
        size = cut_bytes(live, fitted)
        report(f"cut {number}: {', '.join(map(described, fitted))}; {size:.0f} bytes per row")
        if smallest < size:
            served.manifest = replace(served.manifest, input_cuts=served.manifest.input_cuts | {number})
            report(f"cut {number}: the input travels instead, {smallest:.0f} bytes per row with {compression}")
        live = served.cross(number, live)
    return served.manifest


def _points(
    served: Served,
    tune: Split,
    calibration: Split,
    settings: CalibrationSettings,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Operating points `default` and `full`, measured on the calibration split."""
    criterion = criterion_named(settings.criterion)
    rule = Rule(criterion, served.manifest.exits, len(served.manifest.classes))
    flops_E = exit_flops(served.manifest)
    labels_N = calibration.examples.labels_N
    scores = ExitScores.of(calibration.said, rule)
    chosen = choose(
        criterion,
        ExitScores.of(tune.said, rule),
        scores,
        labels_N,
        flops_E,
        settings,
    )
    full = (*(float("nan"),) * (len(flops_E) - 1), criterion.accept_all)
    points = {}
    for name, thresholds in (("default", chosen), ("full", full)):
        found = outcome(scores, labels_N, criterion, thresholds, flops_E)
        rates = " / ".join(f"{100 * rate:.1f}" for rate in found.exit_rates)
        report(f"{name}: accuracy {100 * found.accuracy:.2f} %, exits {rates} %, {found.mean_flops / 1e6:.2f} MFLOPs")
        points[name] = {
            "criterion": criterion.name,
            "thresholds": thresholds_json(thresholds),
            "measured": {
                "split": "calibration",
                "n": len(labels_N),
                "accuracy": round(found.accuracy, 6),
                "exit_rates": [round(rate, 6) for rate in found.exit_rates],
                "mean_flops": round(found.mean_flops, 1),
            },
            "guarantee": None,
            "configuration": served.configuration(),
        }
    return points
