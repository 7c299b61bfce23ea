import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.baselines import derived, rivals, stored
from calibration.int8 import quantise
from calibration.one_graph import OneGraph, join_stages
from calibration.served import Served
from calibration.settings import CutSettings
from calibration.whole import Whole
from common.bundle import Bundle, write_manifest
from common.errors import BundleError, ConfigError
from common.types import Tensors
from tests.networks import write_skip
from tests.synthetic import make_rows, write_convolving, write_tiny
from tests.training.nets import skipping
from training.export import export


def no_rows() -> Tensors:
    raise ConfigError("The tune rows are not here.")


def images() -> Tensors:
    return {"image": make_rows(200, seed=8)[0]}


def test_joined_stages_are_the_network_without_exits(tmp_path: Path) -> None:
    bundle, skip = write_skip(tmp_path / "net")
    model = join_stages(bundle)
    x = np.random.default_rng(0).normal(0, 1, (9, 6)).astype(np.float32)
    found = OneGraph(model.SerializeToString(), "net").run({"x": x})
    np.testing.assert_allclose(found, skip.logits(x)[-1], rtol=1e-5, atol=1e-5)
    assert not any("logits0" in node.output for node in model.graph.node)
    assert not {"stage0/a0", "stage2/a1"} & {weight.name for weight in model.graph.initializer}


def test_an_input_that_a_later_stage_reads_again(tmp_path: Path) -> None:
    root = tmp_path / "net"
    root.mkdir()
    export(skipping(), root, name="skipping", cuts=CutSettings(), provenance={})
    bundle = Bundle(root)
    served = Served(bundle)
    np.testing.assert_allclose(
        OneGraph(join_stages(bundle).SerializeToString(), "net").run(images()),
        Whole(served).run(images()),
        rtol=1e-4,
        atol=1e-4,
    )


def test_dense_networks_are_quantised_without_rows(tmp_path: Path) -> None:
    bundle = Bundle(write_tiny(tmp_path / "tiny"))
    made = quantise(bundle, no_rows)
    assert (made.method, made.rows) == ("dynamic", 0)
    agreement(bundle, made.model)


def test_convolutions_take_their_scales_from_tune_rows(tmp_path: Path) -> None:
    bundle = Bundle(write_convolving(tmp_path / "net"))
    made = quantise(bundle, images)
    assert (made.method, made.rows) == ("static", 200)
    agreement(bundle, made.model)
    found, left_out = derived(bundle, no_rows)
    assert [one.kind for one in found] == ["float32"]
    assert left_out == {"int8": "The tune rows are not here."}


def agreement(bundle: Bundle, model: bytes) -> None:
    exact, coarse = Whole(Served(bundle)).run(images()), OneGraph(model, "int8").run(images())
    assert not np.array_equal(exact, coarse)
    assert (exact.argmax(axis=1) == coarse.argmax(axis=1)).mean() > 0.9


def test_without_onnx_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else found(name))
    baselines, left_out = derived(Bundle(write_tiny(tmp_path / "tiny")), no_rows)
    assert baselines == []
    assert left_out["int8"] == "The int8 baseline needs the package onnx: install offramp with its extra `build`."


def store(root: Path, **changes: Any) -> None:
    model = join_stages(Bundle(root)).SerializeToString()
    (root / "baselines").mkdir(exist_ok=True)
    (root / "baselines" / "half.onnx").write_bytes(model)
    entry = {
        "name": "half", "kind": "static", "sha256": hashlib.sha256(model).hexdigest(), "flops": 7, "parameters": 3,
        "model": {"factory": "small", "options": {"width": 0.5}}, "training": {"epochs": 2},
    }  # fmt: skip
    (root / "baselines.json").write_text(json.dumps({"data": {}, "baselines": [entry | changes]}))


def test_stored_networks_are_verified(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "tiny")
    assert stored(Bundle(root)) == []
    before = Bundle(root).digest
    store(root)
    (one,) = stored(Bundle(root))
    assert (one.name, one.kind, one.facts["flops"]) == ("half", "static", 7)
    assert Bundle(root).digest == before
    for changes, said in [({"sha256": "0" * 64}, "was changed"), ({"name": "../x"}, "name"), ({"kind": "x"}, "kind")]:
        store(root, **changes)
        with pytest.raises(BundleError, match=said):
            stored(Bundle(root))
    store(root)
    document = json.loads((root / "manifest.json").read_text())
    document["provenance"]["data"] = {"train_sha256": {"a": "0"}}
    write_manifest(root, document)
    text = (root / "baselines.json").read_text().replace('"data": {}', '"data": {"train_sha256": {"a": "1"}}')
    (root / "baselines.json").write_text(text)
    with pytest.raises(BundleError, match="trained on other train files"):
        stored(Bundle(root))
    (root / "baselines.json").write_text("{")
    with pytest.raises(BundleError, match=r"baselines\.json is not valid JSON"):
        stored(Bundle(root))


def test_the_rival_is_the_quickest_that_is_as_accurate() -> None:
    def entry(name: str, kind: str, low: float, mean: float) -> dict[str, Any]:
        return {"name": name, "kind": kind, "gaps": {"p": {"interval": [low, 1.0]}}, "latency": {"mean_us": mean}}

    latency = {"p": {"mean_us": 10.0}}
    weak, good, slow = entry("w", "static", 0.01, 5), entry("g", "static", -0.01, 20), entry("s", "backbone", -0.5, 90)
    coarse = entry("c", "int8", -0.5, 1)
    assert rivals([weak, good, slow, coarse], ["p"], latency) == {"p": {"name": "g", "speedup": 2.0}}
    assert rivals([weak, coarse], ["p"], latency) == {"p": None}
