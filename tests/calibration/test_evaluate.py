import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calibration.calibrate import calibrate
from calibration.card import model_card
from calibration.datasets import load_test
from calibration.document import load_document, recipe_section
from calibration.evaluate import evaluate
from calibration.exit_figures import taken
from calibration.latency import answering
from calibration.plot import _colour, _mark
from calibration.served import Served
from calibration.settings import DataSettings
from common.bundle import MANIFEST, Bundle, write_manifest
from common.errors import BundleError, ConfigError
from tests.calibration.test_baselines import store
from tests.networks import edit_manifest
from tests.synthetic import write_split, write_tiny

KEYS = {
    "bundle", "digest", "split", "n", "data_sha256", "configuration", "exits", "operating_points",
    "forwarded_bytes", "latency", "overthinking", "oracle", "baselines", "as_accurate", "left_out",
}  # fmt: skip


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    root = write_tiny(tmp_path_factory.mktemp("bundles") / "tiny")
    calibrate(root, data)
    return root


def test_measures_the_bundle_as_it_is(calibrated: Path, data: Path) -> None:
    before = (calibrated / MANIFEST).read_bytes()
    result = evaluate(calibrated, data, latency_rows=20)
    assert set(result) == KEYS
    assert json.loads(json.dumps(result)) == result
    assert (calibrated / MANIFEST).read_bytes() == before
    assert result["digest"] == Bundle(calibrated).digest and result["n"] == 300
    default, full = result["operating_points"]["default"], result["operating_points"]["full"]
    assert sum(default["exit_rates"]) == pytest.approx(1.0)
    assert default["mean_flops"] < full["mean_flops"] == 12_900
    assert full["accuracy"] == result["exits"][-1]["accuracy"] and full["drop"] == 0.0
    answered = zip(default["exit_rates"], default["exit_accuracy"], strict=True)
    assert sum(rate * accuracy for rate, accuracy in answered) == pytest.approx(default["accuracy"])


def test_sizes_of_what_is_forwarded(calibrated: Path, data: Path) -> None:
    (entry,) = evaluate(calibrated, data, latency_rows=0)["forwarded_bytes"]
    assert entry["cut"] == 0 and 0 < entry["rows"] < 300
    assert entry["uncoded"] == 32 * 4 and entry["input"] == 64
    assert 0 < entry["coded"] < 64 and entry["forward"] == "activations"
    assert entry["share"] == entry["rows"] / 300 and entry["input_png"] is None  # no door takes images


def test_compressed_images_are_the_alternative_to_activations(calibrated: Path, data: Path, tmp_path: Path) -> None:
    root = tmp_path / "net"
    shutil.copytree(calibrated, root)
    document = json.loads((root / MANIFEST).read_text())
    document["input"]["image"] = {"tensor": "image", "mode": "L", "size": [8, 8]}
    document["cuts"][0]["forward"] = "input"
    write_manifest(root, document)
    (entry,) = evaluate(root, data, latency_rows=0)["forwarded_bytes"]
    assert entry["input_png"] > entry["input"]  # 64 bytes of noise do not shrink
    assert entry["forward"] == "input" and entry["coded"] == entry["input"]


def test_times_every_point_and_the_network_without_exits(calibrated: Path, data: Path) -> None:
    result = evaluate(calibrated, data, latency_rows=70)
    latency = result["latency"]
    assert set(latency) == {"default", "full", "without_exits"}
    figures = {"mean_us", "p50_us", "p95_us", "p99_us", "speedup"}
    for entry in (*latency.values(), *(one["latency"] for one in result["baselines"])):
        assert set(entry) == figures | {"rows", "first_us", "batch32"}
        for times in (entry, entry["batch32"]):
            assert 0 < times["p50_us"] <= times["p95_us"] <= times["p99_us"]
        assert set(entry["batch32"]) == figures
        assert entry["rows"] == 70 and entry["first_us"] > 0
    assert latency["without_exits"]["speedup"] == latency["without_exits"]["batch32"]["speedup"] == 1.0
    assert evaluate(calibrated, data, latency_rows=20)["latency"]["default"]["batch32"] is None
    assert "latency" not in evaluate(calibrated, data, latency_rows=0)


def test_what_is_timed_answers_as_the_tiers_do(calibrated: Path, data: Path) -> None:
    served = Served(Bundle(calibrated))
    test = load_test(recipe_section(served.bundle, "data", DataSettings), data)
    said = served.says(test)
    for name, point in served.manifest.operating_points.items():
        run, rows = answering(served, point), taken(served.manifest, point, said, test.labels_N)
        batches = [{"image": test.inputs["image"][at : at + 32]} for at in range(0, 300, 32)]
        together = np.concatenate([np.asarray(run(batch)) for batch in batches])
        singly = np.array([run({"image": test.inputs["image"][i : i + 1]}) for i in range(300)])
        assert (together == singly).all()
        assert ((together == test.labels_N) == rows.right_N).mean() > 0.98, (
            name
        )  # they differ by the codec, which takes no part in timing


def test_figures_agree_with_one_another(calibrated: Path, data: Path) -> None:
    result = evaluate(calibrated, data, latency_rows=0)
    first, last = result["exits"]
    assert last["foresight"] is None and first["foresight"]["criterion"] == "max-probability"
    assert 0.5 < first["foresight"]["right"]["auroc"] <= 1.0
    assert first["calibrated"]["brier"] < first["uncalibrated"]["brier"] + 0.01
    assert sum(one["rows"] for one in first["calibrated"]["bins"]) == 300
    over, best = result["overthinking"], result["oracle"]
    assert over["destructive"]["share"] == pytest.approx(best["accuracy"] - last["accuracy"])
    for point in result["operating_points"].values():
        low, high = point["accuracy_interval"]
        assert low < point["accuracy"] < high
        assert point["drop_interval"][0] <= point["drop"] <= point["drop_interval"][1]
        assert point["accuracy"] <= best["accuracy"]
    default, full = result["operating_points"]["default"], result["operating_points"]["full"]
    assert default["random_accuracy"] < default["accuracy"]
    assert full["random_accuracy"] == full["accuracy"]
    assert full["exit_accuracy_intervals"][0] is None and len(full["exit_rate_intervals"]) == 2


def test_baselines_stand_beside_the_operating_points(calibrated: Path, data: Path, tmp_path: Path) -> None:
    root = tmp_path / "net"
    shutil.copytree(calibrated, root)
    store(root)
    result = evaluate(root, data, latency_rows=20)
    assert [(one["name"], one["kind"]) for one in result["baselines"]] == [
        ("float32", "float32"), ("int8", "int8"), ("half", "static")
    ]  # fmt: skip
    assert result["left_out"] == {}
    for one in result["baselines"]:
        assert set(one["gaps"]) == {"default", "full"} and one["bytes"] > 0
        gap = result["operating_points"]["default"]["accuracy"] - one["accuracy"]
        assert one["gaps"]["default"]["gap"] == pytest.approx(gap)
    assert result["as_accurate"]["full"]["name"] == "half"  # the same network under another name
    assert result["digest"] == Bundle(calibrated).digest


def test_every_operating_point_has_a_look_of_its_own() -> None:
    looks = [(_colour(number), _mark(number)) for number in range(36)]
    assert len(set(looks)) == 36 and "C0" not in {colour for colour, _ in looks}


def test_draws_a_picture(calibrated: Path, data: Path, tmp_path: Path) -> None:
    evaluate(calibrated, data, plot=tmp_path / "a.png", latency_rows=0)
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG" and min(image.size) > 300
        assert len(np.unique(np.asarray(image.convert("L")))) > 10
    assert (tmp_path / "a-reliability.png").read_bytes().startswith(b"\x89PNG")
    evaluate(calibrated, data, plot=tmp_path / "timed.png", latency_rows=10)
    assert (tmp_path / "timed.png").stat().st_size > (tmp_path / "a.png").stat().st_size
    said: list[str] = []
    with pytest.raises(ConfigError, match=r"a\.png cannot be written: there is no folder .*absent"):
        evaluate(calibrated, data, plot=tmp_path / "absent" / "a.png", latency_rows=0, report=said.append)
    assert not said  # before anything is measured


def test_leaves_the_bundle_alone_unless_told(calibrated: Path, data: Path) -> None:
    evaluate(calibrated, data, latency_rows=0)
    assert not (calibrated / "evaluation.json").exists()
    result = evaluate(calibrated, data, write=True, plot=calibrated / "evaluation.png", latency_rows=5)
    assert json.loads((calibrated / "evaluation.json").read_text()) == result
    card = (calibrated / "README.md").read_text()
    assert Bundle(calibrated).digest in card
    assert f"{100 * result['operating_points']['default']['accuracy']:.2f}" in card
    for heading in ("Intended use", "Data", "Limits, and what is not guaranteed", "Baselines", "Time per row"):
        assert f"\n## {heading}\n" in card
    assert "No operating point carries a certificate." in card and "| `int8` |" in card
    for row in re.findall(r"^\|.*$", card, re.M):
        assert row.endswith("|") and "nan" not in row
    assert not [path for path in calibrated.iterdir() if path.name.startswith(".")]
    Bundle(calibrated).verify()


@pytest.mark.parametrize(("held", "said"), [({"certify": 0.15}, "15 %"), ({"calibration": 1500}, "1,500")])
def test_the_card_says_how_many_rows_were_used_for_what(
    calibrated: Path, data: Path, held: dict[str, Any], said: str
) -> None:
    provenance = load_document(Bundle(calibrated))["provenance"]
    provenance["recipe"]["data"] = {"dataset": "mnist", "validation": 0.1, "tune": 300, **held}
    edit_manifest(calibrated, provenance=provenance)
    card = model_card(Bundle(calibrated), evaluate(calibrated, data, latency_rows=0))
    assert "The train part: 10 % chose the epoch, 300 fitted temperatures" in card
    assert f"chose thresholds, {said} certified what is certified and measured every operating point, the rest" in card


def test_never_opens_the_train_split(calibrated: Path, data: Path, tmp_path: Path) -> None:
    write_split(tmp_path, "t10k", 300, seed=3)
    alone, both = (evaluate(calibrated, folder, latency_rows=0) for folder in (tmp_path, data))
    assert alone == both


def test_mistakes_are_one_sentence(calibrated: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="t10k-images-idx3-ubyte"):
        evaluate(calibrated, tmp_path)
    with pytest.raises(BundleError, match="missing"):
        evaluate(tmp_path, tmp_path)


def test_an_uncalibrated_bundle_can_be_evaluated(tiny: Path, data: Path) -> None:
    result = evaluate(tiny, data, latency_rows=0)
    assert result["operating_points"]["default"]["exit_rates"] == [0.0, 1.0]


@pytest.mark.openvino
def test_runs_what_it_was_calibrated_with_unless_told(tiny: Path, data: Path) -> None:
    calibrate(tiny, data, runtime="openvino")
    point = Bundle(tiny).manifest.operating_points["default"]
    assert point.configuration is not None and point.configuration["runtime"] == "openvino"
    assert evaluate(tiny, data, latency_rows=0)["configuration"]["runtime"] == "openvino"
    assert evaluate(tiny, data, latency_rows=0, runtime="onnxruntime")["configuration"]["runtime"] == "onnxruntime"
    with pytest.raises(ConfigError, match="runtime is 'x'"):
        evaluate(tiny, data, latency_rows=0, runtime="x")
