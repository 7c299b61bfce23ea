import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.calibrate import calibrate
from calibration.evaluate import evaluate
from common.bundle import MANIFEST, Bundle
from common.errors import BundleError, ConfigError
from tests.synthetic import write_split, write_tiny

KEYS = {
    "bundle", "digest", "split", "n", "data_sha256", "configuration", "exits", "operating_points",
    "forwarded_bytes", "latency",
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
    assert 0 < entry["coded"] < 64


def test_times_every_point_and_the_network_without_exits(calibrated: Path, data: Path) -> None:
    latency = evaluate(calibrated, data, latency_rows=20)["latency"]
    assert set(latency) == {"default", "full", "without_exits"}
    for entry in latency.values():
        assert set(entry) == {"mean_us", "p50_us", "p95_us", "p99_us", "speedup"}
        assert 0 < entry["p50_us"] <= entry["p95_us"] <= entry["p99_us"]
    assert latency["without_exits"]["speedup"] == 1.0
    assert "latency" not in evaluate(calibrated, data, latency_rows=0)


def test_draws_a_picture(calibrated: Path, data: Path, tmp_path: Path) -> None:
    evaluate(calibrated, data, plot=tmp_path / "a.png", latency_rows=0)
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG" and min(image.size) > 300
        assert len(np.unique(np.asarray(image.convert("L")))) > 10
    with pytest.raises(ConfigError, match="cannot be written"):
        evaluate(calibrated, data, plot=tmp_path / "absent" / "a.png", latency_rows=0)


def test_leaves_the_bundle_alone_unless_told(calibrated: Path, data: Path) -> None:
    evaluate(calibrated, data, latency_rows=0)
    assert not (calibrated / "evaluation.json").exists()
    result = evaluate(calibrated, data, write=True, plot=calibrated / "evaluation.png", latency_rows=5)
    assert json.loads((calibrated / "evaluation.json").read_text()) == result
    card = (calibrated / "README.md").read_text()
    assert Bundle(calibrated).digest in card
    assert f"{100 * result['operating_points']['default']['accuracy']:.2f}" in card
    assert not [path for path in calibrated.iterdir() if path.name.startswith(".")]
    Bundle(calibrated).verify()


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
