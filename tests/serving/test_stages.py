import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.bundle import Bundle
from common.errors import BundleError
from common.serving.batcher import RunCost
from common.serving.configuration import differences
from common.serving.stages import load_stages, warm_up
from tests.networks import edit_manifest, write_skip


def test_a_tier_needs_only_its_own_files(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    (tmp_path / "stage0.onnx").unlink()
    assert sorted(load_stages(bundle, start=1, stop=3, runtime="onnxruntime", threads=1)) == [1, 2]
    with pytest.raises(BundleError, match=r"stage0\.onnx is missing"):
        load_stages(bundle, start=0, stop=1, runtime="onnxruntime", threads=1)


def test_stages_beyond_its_range_stay_unread(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    (tmp_path / "stage3.onnx").write_bytes(b"damaged")
    assert sorted(load_stages(bundle, start=0, stop=3, runtime="onnxruntime", threads=1)) == [0, 1, 2]
    (tmp_path / "stage0.onnx").write_bytes(b"damaged")
    assert sorted(load_stages(bundle, start=1, stop=3, runtime="onnxruntime", threads=1)) == [1, 2]
    with pytest.raises(BundleError, match="does not match"):
        load_stages(bundle, start=0, stop=3, runtime="onnxruntime", threads=1)


@pytest.mark.parametrize("shape", [[7], [2**50], [2, 3]])
def test_a_manifest_that_is_wrong_about_an_input(tmp_path: Path, shape: list[int]) -> None:
    bundle, _ = write_skip(tmp_path)
    tensors = json.loads((tmp_path / "manifest.json").read_text())["tensors"]
    edit_manifest(tmp_path, tensors=tensors | {"x": {"dtype": "float32", "shape": shape}})
    runners = load_stages(bundle, start=0, stop=1, runtime="onnxruntime", threads=1)
    with pytest.raises(BundleError, match=r"stage0\.onnx does not run on what the manifest says"):
        warm_up(Bundle(tmp_path).manifest, runners, {0: RunCost()})


def test_the_self_test_compares_with_the_manifest(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    runners = load_stages(bundle, start=0, stop=4, runtime="onnxruntime", threads=1)
    costs = {stage: RunCost() for stage in runners}
    warm_up(bundle.manifest, runners, costs)
    assert costs[0].expect(1) > 0
    tensors = {n: {"dtype": "float32", "shape": [6]} for n in ("x", "s", "h1", "h2")}
    tensors |= {"h0": {"dtype": "float32", "shape": [7]}}
    tensors |= {f"logits{k}": {"dtype": "float32", "shape": [5]} for k in range(3)}
    edit_manifest(tmp_path, tensors=tensors)
    with pytest.raises(BundleError, match=r"writes 'h0' as float32 \[1, 6\]"):
        warm_up(Bundle(tmp_path).manifest, runners, costs)


def test_differences_from_the_measured_configuration(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path, codec="u8")
    runners = load_stages(bundle, start=0, stop=4, runtime="onnxruntime", threads=1)

    input_cuts: set[int] = set()

    def said(stops: list[int], configuration: dict[str, object] | None) -> tuple[str, ...]:
        point = SimpleNamespace(configuration=configuration, guarantee=None)
        manifest = SimpleNamespace(
            operating_points={"p": point},
            cuts=bundle.manifest.cuts,
            stages=bundle.manifest.stages,
            input_cuts=input_cuts,
        )
        system = SimpleNamespace(tiers=[SimpleNamespace(stop=stop) for stop in stops])
        return differences(system, manifest, runners, "p")  # type: ignore[arg-type]

    same = {"runtime": "onnxruntime", "precision": "float32", "coded_cuts": [0, 2]}
    assert said([1, 3, 4], same) == ()
    assert said([1, 1, 3, 4], same) == ()
    assert said([1, 4], same) == ("coded cuts are [0] instead of [0, 2]",)
    assert said([1, 3, 4], same | {"runtime": "openvino"}) == ("runtime is onnxruntime instead of openvino",)
    assert len(said([4], None)) == 1
    input_cuts.add(0)
    assert said([1, 3, 4], same) == ("coded cuts are [2] instead of [0, 2]",), "an input is forwarded as it is"
