import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.calibrate import calibrate
from calibration.datasets import divide, load_train
from calibration.guarantee import Split
from calibration.points import make_points
from calibration.served import Said, Served
from calibration.settings import CalibrationSettings, DataSettings
from calibration.thresholds import ExitScores, exit_flops, outcome
from common.bundle import Bundle
from common.criteria import CRITERIA
from common.errors import BundleError, ConfigError
from common.rule import Rule
from tests.networks import write_skip
from tests.synthetic import recipe, write_data, write_idx, write_split, write_tiny


def _change_recipe(root: Path, **changes: Any) -> None:
    document = json.loads((root / "manifest.json").read_text())
    document["provenance"]["recipe"] = recipe(**changes)
    (root / "manifest.json").write_text(json.dumps(document))


def test_fills_ranges_temperatures_and_thresholds(tiny: Path, data: Path) -> None:
    said: list[str] = []
    digest = calibrate(tiny, data, report=said.append)
    bundle = Bundle(tiny, digest=digest)
    crossing = bundle.manifest.cuts[0][0]
    assert crossing.low is not None and crossing.high is not None and crossing.low < crossing.high
    assert all(e.temperature != 1.0 for e in bundle.manifest.exits)
    point = bundle.manifest.operating_points["default"]
    assert 0.0 < point.thresholds[0] <= 1.0 and point.thresholds[1] == 0.0
    assert point.configuration == {"runtime": "onnxruntime", "precision": "float32", "coded_cuts": [0]}
    assert point.measured is not None and point.measured["split"] == "certify" and point.measured["n"] == 400
    assert 0.1 < point.measured["exit_rates"][0] < 1.0
    assert math.isnan(bundle.manifest.operating_points["full"].thresholds[0])
    assert any("temperatures" in line for line in said)
    bundle.verify()


def test_what_is_recorded_is_what_the_certify_split_gives(tiny: Path, data: Path) -> None:
    calibrate(tiny, data)
    bundle = Bundle(tiny)
    settings = DataSettings(**recipe()["data"])
    rows = divide(load_train(settings, data), settings).certify
    criterion = CRITERIA["max-probability"]
    default = bundle.manifest.operating_points["default"]
    scores = ExitScores.of(Served(bundle).says(rows), Rule.of(bundle.manifest, default))
    last = (scores.labels_EN[-1] == rows.labels_N).mean()
    for point in bundle.manifest.operating_points.values():
        found = outcome(scores, rows.labels_N, criterion, point.thresholds, exit_flops(bundle.manifest))
        assert point.measured is not None
        assert point.measured["accuracy"] == pytest.approx(found.accuracy, abs=1e-6)
        assert point.measured["exit_rates"] == pytest.approx(list(found.exit_rates), abs=1e-6)
        assert last - found.accuracy <= recipe()["calibration"]["target_drop"]  # this recipe's key says `calibration`


def test_no_certify_row_has_a_say_in_what_is_not_certified(tmp_path: Path, data: Path) -> None:
    settings = DataSettings(**recipe()["data"])
    splits = divide(load_train(settings, data), settings)
    calibrate(write_tiny(tmp_path, calibration={"combine": "all"}), data)
    served = Served(Bundle(tmp_path))
    wanted = CalibrationSettings(
        target_drop=0.05,
        points=[
            {"name": "half", "budget": 0.9},
            {"name": "gates", "criterion": "gate", "combine": "all", "budget": 0.8},
        ],
    )
    tune = Split(examples=splits.tune, said=served.says(splits.tune))
    held_out = Split(examples=splits.certify, said=served.says(splits.certify))
    turned = replace(held_out, examples=replace(splits.certify, labels_N=splits.certify.labels_N * 0))
    made = []
    for certify in (held_out, turned):
        points = make_points(served, wanted.all_points(), wanted, tune, certify, tune, lambda text: None)
        assert {point.pop("measured")["split"] for point in points.values()} == {"certify"}
        made.append(points)
    assert made[0] == made[1] and made[0]["default"]["thresholds"][0] is not None


def test_too_few_rows_for_a_small_drop_are_said(tiny: Path, data: Path) -> None:
    said: list[str] = []
    calibrate(tiny, data, target_drop=0.001, report=said.append)
    wanted = (
        "default: no row leaves early. 400 certify rows cannot show a drop of 0.001 at confidence 0.9, even if not one "
        "answer differs: it takes 2,303 of them (data.certify), or a target_drop of 0.00575."
    )
    assert wanted in said
    calibrate(tiny, data, target_drop=0.00575, report=said.append)
    point = Bundle(tiny).manifest.operating_points["default"]
    assert point.measured is not None and point.measured["exit_rates"][0] > 0  # as it said
    calibrate(tiny, data, target_drop=0.0, report=said.append)
    assert any("A target_drop of 0 needs exits that gain accuracy" in line for line in said)


def test_exits_that_cost_more_than_the_target_are_said(tiny: Path, data: Path) -> None:
    settings = DataSettings(**recipe()["data"])
    splits = divide(load_train(settings, data), settings)
    served = Served(Bundle(tiny))
    _, last = served.says(splits.tune).logits
    wrong = Split(examples=splits.tune, said=Said(logits=(np.roll(last, 1, axis=1), last), gates=(None, None)))
    said: list[str] = []
    wanted = CalibrationSettings(target_drop=0.01)
    points = make_points(served, wanted.all_points(), wanted, wrong, wrong, wrong, said.append)
    assert points["default"]["thresholds"][0] is None
    (line,) = [line for line in said if "no row leaves early" in line]
    assert "within 0.01. A larger target_drop, more tune rows or better exits help." in line


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_every_criterion_works(tmp_path: Path, data: Path, criterion: str) -> None:
    tiny = write_tiny(tmp_path / "tiny", gate=True)
    calibrate(tiny, data, criterion=criterion, target_drop=None if criterion != "patience" else 0.9)
    point = Bundle(tiny).manifest.operating_points["default"]
    assert point.criterion == criterion
    assert point.measured is not None and point.measured["exit_rates"][0] > 0.1


def test_is_repeatable_and_idempotent(tiny: Path, data: Path) -> None:
    first = calibrate(tiny, data)
    assert calibrate(tiny, data) == first


def test_a_target_of_the_caller_wins(tiny: Path, data: Path) -> None:
    rates = []
    for target in (0.0, 0.03, 0.3):
        calibrate(tiny, data, target_drop=target)
        measured = Bundle(tiny).manifest.operating_points["default"].measured
        assert measured is not None
        rates.append(measured["exit_rates"][0])
    assert rates == sorted(rates) and rates[0] < rates[2]
    assert Bundle(tiny).manifest.provenance["calibration"]["target_drop"] == 0.3


def test_never_opens_the_test_split(tiny: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "train-only", "train", 1200, seed=2)
    digest = calibrate(tiny, tmp_path / "train-only")
    both = write_data(tmp_path / "both")
    for path in both.glob("t10k*"):
        path.write_bytes(b"whoever opens this fails")
    assert calibrate(tiny, both) == digest


def test_rows_that_were_trained_on_change_nothing(tiny: Path, tmp_path: Path) -> None:
    """Only tune and calibration rows count: spoiling all others leaves the result as it is."""
    settings = DataSettings(**recipe()["data"])
    folder = write_data(tmp_path / "data")
    digest = calibrate(tiny, folder)
    official = load_train(settings, folder)
    order = np.random.Generator(np.random.PCG64(settings.seed)).permutation(len(official))
    other = np.concatenate([order[:100], order[800:]])  # validation, and what is left for training

    images = official.inputs["image"][:, 0].copy()
    images[other] = 255 - images[other]  # other rows, and still no two alike
    write_idx(folder / "train-images-idx3-ubyte.gz", images)
    assert calibrate(tiny, folder) == digest


def test_data_that_the_bundle_was_not_trained_on_is_refused(tiny: Path, data: Path) -> None:
    document = json.loads((tiny / "manifest.json").read_text())
    document["provenance"]["data"] = {"train_sha256": {"train-images-idx3-ubyte": "0" * 64}}
    (tiny / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="differ from those that the bundle was trained on"):
        calibrate(tiny, data)


def test_a_target_that_cannot_be_met_sends_everything_to_the_last_exit(tiny: Path, data: Path) -> None:
    calibrate(tiny, data, target_drop=0.0)
    point = Bundle(tiny).manifest.operating_points["default"]
    assert point.measured is not None and point.measured["exit_rates"][1] > 0.9


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda root: shutil.rmtree(root), BundleError, "manifest.json is missing"),
        (lambda root: (root / "stage1.onnx").unlink(), BundleError, "stage1.onnx is missing"),
        (lambda root: (root / "stage0.onnx").write_bytes(b"x"), BundleError, "it was changed"),
        (lambda root: _change_recipe(root, data={"calibration": 0}), ConfigError, "recipe.data: calibration is 0"),
        (lambda root: _change_recipe(root, data={"tune": 1100}), ConfigError, "ask for 1600 rows"),
        (
            lambda root: _change_recipe(root, data={"tuen": 1}),
            ConfigError,
            "tuen is not a known key. Did you mean tune",
        ),
        (lambda root: _change_recipe(root, calibration={"criterion": "luck"}), ConfigError, "criterion is 'luck'"),
    ],
)
def test_mistakes_are_one_sentence_and_change_nothing(
    tiny: Path, data: Path, spoil: Any, error: type[Exception], said: str
) -> None:
    spoil(tiny)
    before = {path.name: path.read_bytes() for path in tiny.glob("*")}
    with pytest.raises(error, match=said) as caught:
        calibrate(tiny, data)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tiny.glob("*")} == before


def test_wrong_options_are_refused(tiny: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match=r"target drop is 1.5"):
        calibrate(tiny, data, target_drop=1.5)
    with pytest.raises(ConfigError, match="criterion is 'x'"):
        calibrate(tiny, data, criterion="x")
    with pytest.raises(ConfigError, match="runtime is 'x'"):
        calibrate(tiny, data, runtime="x")


def test_logits_that_are_not_finite_are_refused(tmp_path: Path, data: Path) -> None:
    root = write_tiny(tmp_path / "nan", damage=True)
    before = (root / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match="Exit 1 of tiny gives logits that are not finite"):
        calibrate(root, data)
    assert (root / "manifest.json").read_bytes() == before


def test_a_bundle_without_a_recipe_is_refused(tmp_path: Path, data: Path) -> None:
    write_skip(tmp_path / "skip")
    with pytest.raises(BundleError, match=r"carries no provenance.recipe.data"):
        calibrate(tmp_path / "skip", data)


def test_data_of_another_shape_are_refused(tiny: Path, tmp_path: Path) -> None:

    folder = write_data(tmp_path / "data")
    images = np.random.default_rng(0).integers(0, 256, (1200, 9, 8)).astype(np.uint8)
    write_idx(folder / "train-images-idx3-ubyte.gz", images)
    with pytest.raises(ConfigError, match=r"'image' is uint8 \[1, 9, 8\]. The bundle takes uint8 \[1, 8, 8\]"):
        calibrate(tiny, folder)
