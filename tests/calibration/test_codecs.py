"""Codecs chosen at calibration: the fewest bytes within the recipe's allowance."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.calibrate import calibrate
from calibration.codecs import choose_cut, cut_bytes, input_bytes
from calibration.datasets import divide, load_train
from calibration.ranges import fit_cut, trial_ranges
from calibration.served import Served
from calibration.settings import CutSettings, DataSettings
from common.bundle import Bundle
from common.manifest import CODECS, CutTensor
from common.types import Tensors
from common.wire.codecs import round_trip
from tests.networks import WIDTH, write_skip
from tests.synthetic import make_rows, recipe, write_tiny

FREE = CutSettings(choose=True, loss=10.0, drop=0.5, changed=1.0)
STRICT = CutSettings(choose=True, loss=0.0, drop=0.0)


def crossing(root: Path) -> tuple[Served, Tensors, np.ndarray]:
    images, labels = make_rows(300, seed=9)
    served = Served(Bundle(root))
    return served, {"image": images, **served.run_stage(0, {"image": images})}, labels.astype(np.int64)


def test_the_smallest_of_all_codecs_where_anything_is_allowed(tiny: Path) -> None:
    served, live, labels = crossing(tiny)
    said: list[str] = []
    (how,) = choose_cut(served, 0, live, labels, FREE, said.append)
    assert how.codec == "u4", "32 numbers are too few to carry ranges per channel"
    assert cut_bytes(live, [how]) <= 32 / 2 + 8 + 16
    assert [line.split()[3].rstrip(":") for line in said] == ["raw", "u8", "u8c", "u4", "u4c", "float16", "bfloat16"]
    assert all("bytes per row" in line and "us," in line and "answers the same" in line for line in said)


def test_a_strict_allowance_is_kept(tiny: Path) -> None:
    served, live, labels = crossing(tiny)
    said: list[str] = []
    (how,) = choose_cut(served, 0, live, labels, STRICT, said.append)
    plain, coded = (served.logits_from(1, served.cross(0, live, [each]))[-1] for each in (CutTensor(name="h0"), how))
    assert (coded.argmax(1) == labels).mean() >= (plain.argmax(1) == labels).mean()
    assert any("too dear" in line for line in said)
    free = choose_cut(served, 0, live, labels, FREE, said.append)
    assert cut_bytes(live, [how]) > cut_bytes(live, free)


def test_answers_that_may_change_are_bounded_by_themselves(tiny: Path) -> None:
    """Where as many answers turn right as wrong, accuracy alone would not notice."""
    served, live, labels = crossing(tiny)
    plain = served.logits_from(1, live)[-1].argmax(1)
    for changed in (0.0, 0.02):
        allowed = CutSettings(choose=True, loss=10.0, drop=0.5, changed=changed)
        (how,) = choose_cut(served, 0, live, labels, allowed, lambda line: None)
        coded = served.logits_from(1, served.cross(0, live, [how]))[-1].argmax(1)
        assert (coded != plain).mean() <= changed


def test_the_allowance_holds_for_all_tensors_of_a_cut(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    served = Served(bundle)
    x = np.random.default_rng(0).normal(0, 1, (400, WIDTH)).astype(np.float32)
    live = {"x": x, **served.run_stage(0, {"x": x})}
    plain = served.logits_from(1, live)[-1]
    labels = plain.argmax(1)
    allowed = CutSettings(choose=True, loss=1.0, drop=0.02, changed=1.0)
    codes = choose_cut(served, 0, live, labels, allowed, lambda line: None)
    assert [how.name for how in codes] == ["h0", "s"] and any(how.codec != "raw" for how in codes)
    coded = served.logits_from(1, served.cross(0, live, codes))[-1]
    assert (coded.argmax(1) == labels).mean() >= 0.98


def test_logits_and_integers_stay_uncoded(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "tiny")
    document = json.loads((root / "manifest.json").read_text())
    document["cuts"][0]["tensors"].append({"name": "logits0"})
    (root / "manifest.json").write_text(json.dumps(document))
    served, live, labels = crossing(root)
    codes = choose_cut(served, 0, live, labels, FREE, lambda line: None)
    assert codes[0].codec == "u4" and codes[1].codec == "raw"


def write_recipe(root: Path, **cuts: Any) -> None:
    document = json.loads((root / "manifest.json").read_text())
    document["provenance"]["recipe"] = recipe(cuts=cuts)
    (root / "manifest.json").write_text(json.dumps(document))


def test_calibration_writes_the_choice(tiny: Path, data: Path) -> None:
    write_recipe(tiny, choose=True, loss=0.05, drop=0.02, changed=0.1)
    said: list[str] = []
    digest = calibrate(tiny, data, report=said.append)
    (how,) = Bundle(tiny, digest=digest).manifest.cuts[0]
    assert how.codec in ("u4", "u4c") and how.low is not None
    point = Bundle(tiny).manifest.operating_points["default"]
    assert point.configuration is not None and point.configuration["coded_cuts"] == [0]
    assert calibrate(tiny, data) == digest, "no time that was measured is written"
    assert sum(line.startswith("cut 0: h0 ") for line in said) == len(CODECS) + 1


def test_the_caller_may_choose_where_the_recipe_does_not(tiny: Path, data: Path) -> None:
    write_recipe(tiny, loss=0.05, drop=0.02, changed=0.1)
    calibrate(tiny, data)
    assert Bundle(tiny).manifest.cuts[0][0].codec == "u8"
    calibrate(tiny, data, choose_codecs=True)
    assert Bundle(tiny).manifest.cuts[0][0].codec in ("u4", "u4c")


def test_the_input_where_it_is_smaller(tiny: Path, data: Path) -> None:
    """64 bytes of noise against 32 uncoded floats."""
    document = json.loads((tiny / "manifest.json").read_text())
    document["cuts"][0]["tensors"][0] = {"name": "h0"}
    (tiny / "manifest.json").write_text(json.dumps(document))
    write_recipe(tiny, forward="auto")
    said: list[str] = []
    digest = calibrate(tiny, data, report=said.append)
    manifest = Bundle(tiny, digest=digest).manifest
    assert manifest.input_cuts == {0} and [how.compression for how in manifest.codes(0)] == ["none"]
    assert "cut 0: the input travels instead, 64 bytes per row with none" in said
    write_recipe(tiny, forward="auto", choose=True, loss=0.05, drop=0.02, changed=0.1)
    calibrate(tiny, data)
    assert Bundle(tiny).manifest.input_cuts == set(), "four bits are smaller again"
    write_recipe(tiny)
    calibrate(tiny, data)
    assert "forward" not in json.loads((tiny / "manifest.json").read_text())["cuts"][0]


def test_what_is_computed_again_upstream_is_measured_uncoded(tiny: Path, data: Path) -> None:
    document = json.loads((tiny / "manifest.json").read_text())
    document["cuts"][0] = {"tensors": [{"name": "h0", "codec": "u4"}], "forward": "input"}
    (tiny / "manifest.json").write_text(json.dumps(document))
    settings = DataSettings(**recipe()["data"])
    rows = divide(load_train(settings, data), settings).tune
    served = Served(Bundle(tiny))
    _, again = served.says(rows).logits
    live = {**served.inputs(rows), **served.run_stage(0, served.inputs(rows))}
    assert np.array_equal(again, served.run_stage(1, live)["logits1"])
    assert served.configuration()["coded_cuts"] == []


def test_compressible_inputs_are_compressed(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    compression, size = input_bytes(Served(bundle), {"x": np.zeros((20, WIDTH), np.float32)})
    assert compression == "lz4" and size < 4 * WIDTH


@pytest.mark.parametrize("codec", ["u8", "u8c", "u4", "u4c"])
def test_ranges_to_try(codec: str) -> None:
    rng = np.random.default_rng(0)
    array = np.maximum(rng.normal(0, 1, (200, 3, 5)), 0).astype(np.float32) * np.float32([[[1.0], [5.0], [0.0]]])
    array[0, 0, 0] = 40.0  # one of 3000
    trials = trial_ranges(array, CutTensor(name="t", codec=codec))
    highs = np.array([np.atleast_1d(trial.high) for trial in trials])
    assert (np.diff(highs, axis=0) > 0).all(), "the finest first"
    lows = np.array([np.atleast_1d(trial.low) for trial in trials])
    assert (lows == 0).all() and highs.shape[1] == (3 if codec.endswith("c") else 1)
    finest = float(highs[0, 0])
    assert finest == 40.0 if codec.startswith("u8") else finest < 40.0, "with 15 steps the outlier is cut off"
    if codec == "u4":
        clipped = ((round_trip(array, trials[0]) - array) ** 2).mean()
        whole = ((round_trip(array, CutTensor(name="t", codec="u4", low=0.0, high=40.0)) - array) ** 2).mean()
        assert clipped < whole


def test_a_codec_without_ranges_is_tried_once() -> None:
    assert trial_ranges(np.ones((2, 2)), CutTensor(name="t", codec="float16")) == [CutTensor(name="t", codec="float16")]


def test_four_bits_are_fitted_too(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "tiny")
    document = json.loads((root / "manifest.json").read_text())
    document["cuts"][0]["tensors"][0]["codec"] = "u4c"
    (root / "manifest.json").write_text(json.dumps(document))
    served, live, labels = crossing(root)
    (how,) = fit_cut(served, 0, live, labels, loss=0.01, changed=0.05)
    assert how.codec == "u4c" and isinstance(how.low, tuple) and len(how.low) == 32


def test_a_recipe_without_the_later_keys_is_recorded_as_before() -> None:
    """So that a bundle made anew by an old recipe keeps its digest."""
    assert CutSettings().model_dump() == {"codec": "u8", "compression": "zstd", "loss": 0.001}
    settings = CutSettings(choose=True, forward="auto", drop=0.01, changed=0.1)
    assert CutSettings(**settings.model_dump()) == settings
