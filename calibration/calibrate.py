"""Calibrate a bundle: ranges of the codecs, a temperature per exit, thresholds per operating point.

Only train rows are looked at, and of them only the parts that nothing was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from calibration.apart import check_apart
from calibration.certificate import split_sha256
from calibration.codecs import choose_cut, cut_bytes, input_bytes
from calibration.combination import fit_combinations
from calibration.datasets import Data, Examples, open_data
from calibration.document import check_same_rows, described, load_document, recipe_section, write_codes, write_exits
from calibration.guarantee import Split
from calibration.notes import NOTE
from calibration.points import check_points, make_points
from calibration.ranges import fit_cut
from calibration.served import Served
from calibration.settings import (
    CalibrationSettings,
    CutSettings,
    DataSettings,
    GuaranteeSettings,
    parse_section,
)
from calibration.temperature import cross_entropy, fit_temperature, prior_entropy
from calibration.tested import Tested
from calibration.thresholds import criterion_named, exit_flops
from common.bundle import Bundle, write_manifest
from common.errors import ConfigError
from common.manifest import CutTensor, Manifest
from common.strict_yaml import read_yaml

_LEARNED = 0.99  # of the entropy of the labels: more cross-entropy than that, and nothing was learned
_GONE = (
    "{names} {are} gone: all operating points are made anew, those of the recipe or of --points FILE, and the one of "
    "--epsilon. `--from` adds one to those that are there."
)


def calibrate(
    bundle_dir: Path,
    data_dir: Path | None = None,
    *,
    criterion: str | None = None,
    combine: str | None = None,
    points: list[dict[str, Any]] | None = None,
    target_drop: float | None = None,
    guarantee: GuaranteeSettings | None = None,
    choose_codecs: bool = False,
    runtime: str = "onnxruntime",
    threads: int = 1,
    data: Data | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> str:
    """Calibrate a bundle and replace its manifest in one step; nothing changes when anything fails.

    Args:
        bundle_dir: the bundle; its provenance says which data and which settings.
        data_dir: see `calibration.datasets.open_data`.
        criterion: instead of the recipe's.
        combine: instead of the recipe's.
        points: instead of the recipe's `calibration.points`; see `calibration.settings.PointSettings`.
        target_drop: instead of the recipe's.
        guarantee: instead of the recipe's; None leaves it to the recipe.
        choose_codecs: pick codecs anew even where the recipe fixes them.
        runtime: the stages' runtime; what is measured holds for it.
        threads: inside one runtime call.
        data: the data that the bundle's provenance names, where they are open already.
        report: takes one line per step.

    Returns:
        The bundle's new digest.

    Raises:
        BundleError: when the bundle is damaged or carries no recipe.
        ConfigError: when data or settings do not fit.
    """
    bundle = Bundle(bundle_dir)
    data = data or open_data(recipe_section(bundle, "data", DataSettings), data_dir)
    cuts = recipe_section(bundle, "cuts", CutSettings)
    if choose_codecs:
        cuts = cuts.model_copy(update={"choose": True})
    promised = None if guarantee is None else guarantee.model_dump()
    changes = {"criterion": criterion, "combine": combine, "target_drop": target_drop, "points": points}
    settings = _settings(bundle, {**changes, "guarantee": promised})
    check_same_rows(bundle, data.train.sha256, "calibration")
    splits = data.splits
    served = Served(bundle, runtime=runtime, threads=threads)
    wanted = settings.all_points()
    check_points(wanted, [float(flops) for flops in exit_flops(served.manifest)])
    check_apart(served, splits.tune)
    document = load_document(bundle)
    record = Tested.of(document)
    asked = [
        {**point.guarantee.model_dump(), "criterion": point.criterion, "combine": point.combine}
        for point in wanted
        if point.guarantee is not None
    ]
    if asked and record.promises and (note := record.note(asked, split_sha256(splits.certify))):
        report(note)

    served.manifest = _with_codes(served, splits.tune, cuts, report)
    tune = served.says(splits.tune)
    temperatures = [fit_temperature(logits_NC, splits.tune.labels_N) for logits_NC in tune.logits]
    report("temperatures " + " ".join(f"{t:.3f}" for t in temperatures))
    frequent = prior_entropy(splits.tune.labels_N)
    for number, (logits_NC, temperature) in enumerate(zip(tune.logits, temperatures, strict=True)):
        if cross_entropy(logits_NC, splits.tune.labels_N, temperature) > _LEARNED * frequent:
            report(f"{NOTE}exit {number} tells hardly more of a row than how frequent the classes are")
    exits = tuple(replace(e, temperature=round(t, 6)) for e, t in zip(served.manifest.exits, temperatures, strict=True))
    served.manifest = replace(served.manifest, exits=exits)

    if any(point.combine != "none" for point in wanted):
        combined = fit_combinations(tune.logits, served.manifest.exits, splits.tune.labels_N)
        exits = tuple(replace(e, combine=c) for e, c in zip(served.manifest.exits, combined, strict=True))
        served.manifest = replace(served.manifest, exits=exits)
    seen = Split(examples=splits.tune, said=tune)
    held_out = Split(examples=splits.certify, said=served.says(splits.certify))
    judged_on = (
        seen if data.settings.calibration is None else held_out
    )  # recipes that say `calibration` judge on it, too
    made = make_points(served, wanted, settings, seen, held_out, judged_on, report)
    if gone := [name for name in document["operating_points"] if name not in made]:
        report(f"{NOTE}{_GONE.format(names=' and '.join(gone), are='are' if len(gone) > 1 else 'is')}")
    write_codes(document, served.manifest)
    write_exits(document, served.manifest)
    document["operating_points"] = made
    record.keep(document)
    document["provenance"]["calibration"] = settings.model_dump()
    return write_manifest(bundle.root, document)


def load_points(path: Path) -> list[dict[str, Any]]:
    """A list of operating points from a YAML file; what each must hold is checked with the other settings.

    Raises:
        ConfigError: when the file cannot be read, or holds no list.
    """
    found = read_yaml(path)
    if not isinstance(found, list):
        raise ConfigError(f"{path} must hold a list of operating points.")
    return found


def _settings(bundle: Bundle, changes: Mapping[str, Any]) -> CalibrationSettings:
    """The recipe's settings with what the caller wants instead."""
    settings = recipe_section(bundle, "calibration", CalibrationSettings).model_dump()
    wanted = {key: value for key, value in changes.items() if value is not None}
    if "criterion" in wanted:
        criterion_named(wanted["criterion"])
    drop = wanted.get("target_drop", 0.0)
    if not 0.0 <= drop < 1.0:
        raise ConfigError(f"The target drop is {drop}. It must be a share of rows from 0 to below 1.")
    return parse_section(CalibrationSettings, {**settings, **wanted}, "offramp calibrate")


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
            fitted = fit_cut(served, number, live, tune.labels_N, loss=cuts.loss, changed=cuts.changed)
        done = served.manifest.cuts
        served.manifest = replace(served.manifest, cuts=(*done[:number], fitted, *done[number + 1 :]))
        size = cut_bytes(live, fitted)
        report(f"cut {number}: {', '.join(map(described, fitted))}; {size:.0f} bytes per row")
        if smallest < size:
            served.manifest = replace(served.manifest, input_cuts=served.manifest.input_cuts | {number})
            report(f"cut {number}: the input travels instead, {smallest:.0f} bytes per row with {compression}")
        live = served.cross(number, live)
    return served.manifest
