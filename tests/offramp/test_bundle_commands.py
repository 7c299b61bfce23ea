import importlib.util
import json
import re
from pathlib import Path

import pytest

import offramp
from common.bundle import Bundle
from common.errors import BundleError
from offramp.cli import main
from offramp.commands.tables import print_tables
from tests.networks import edit_manifest, write_skip
from tests.synthetic import write_data, write_tiny
from tests.training.nets import small, write_recipe

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def test_inspect_shows_stages_cuts_exits_and_points(tmp_path: Path, capsys: Captured) -> None:
    bundle, _ = write_skip(tmp_path / "net", codec="u8", compression="zstd")
    assert main(["inspect", str(bundle.root)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"skip  {bundle.digest}\n")
    for title in ("Stages", "Cuts, bytes per row", "Exits", "Operating points", "Every file matches its hash"):
        assert title in out
    assert "u8 + zstd" in out and "never, never, 0" in out


def test_a_table_is_no_place_for_emoji(capsys: Captured) -> None:
    print_tables("./nets.py:two: 5 FLOPs", [("the :one:", [":two:"], [["a:three:b [red]"]])])
    out = capsys.readouterr().out
    assert "./nets.py:two: 5 FLOPs" in out and "the :one:" in out and ":two:" in out and "a:three:b [red]" in out


def test_inspect_json_is_stable(tmp_path: Path, capsys: Captured) -> None:
    bundle, _ = write_skip(tmp_path / "net", codec="u8", compression="zstd")
    assert main(["inspect", str(bundle.root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {
        "bundle", "digest", "path", "classes", "inputs", "stages", "cuts", "exits", "operating_points"
    }  # fmt: skip
    assert [stage["exit"] for stage in document["stages"]] == [0, None, 1, 2]
    assert document["stages"][0]["bytes"] == (bundle.root / "stage0.onnx").stat().st_size
    first = document["cuts"][0]
    elements = [tensor["shape"][0] for tensor in first["tensors"]]
    assert first["raw_bytes"] == 4 * sum(elements)
    assert sum(elements) < first["coded_bytes_at_most"] < 4 * sum(elements) + 200
    assert document["operating_points"]["full"]["thresholds"] == [None, None, 0.0]


def test_inspect_tells_where_the_input_travels_instead(tmp_path: Path, capsys: Captured) -> None:
    bundle, _ = write_skip(tmp_path / "net", codec="u8")
    document = json.loads((bundle.root / "manifest.json").read_text())
    document["cuts"][0]["forward"] = "input"
    edit_manifest(bundle.root, cuts=document["cuts"])
    assert main(["inspect", str(bundle.root)]) == 0
    assert capsys.readouterr().out.count("the input itself") == 1
    assert main(["inspect", str(bundle.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["cuts"]
    assert [cut["forward"] for cut in found] == ["input", "activations", "activations"]


def test_inspect_wants_every_file_as_it_was(tmp_path: Path, capsys: Captured) -> None:
    bundle, _ = write_skip(tmp_path / "net")
    stage = bundle.root / "stage3.onnx"
    stage.write_bytes(stage.read_bytes() + b"\0")
    assert main(["inspect", str(bundle.root)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("offramp: ") and "stage3.onnx does not match" in captured.err
    with pytest.raises(BundleError, match=r"stage3\.onnx"):
        offramp.load_bundle(bundle.root)


def test_calibrate_and_evaluate_on_a_bundle(tmp_path: Path, data: Path, capsys: Captured) -> None:
    root = write_tiny(tmp_path / "tiny")
    assert main(["calibrate", str(root), "--data-dir", str(data)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{root} now has digest {Bundle(root).digest}.\n"
    assert "temperatures" in captured.err
    assert main(["evaluate", str(root), "--data-dir", str(data), "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    result = json.loads(captured.out)
    assert result["digest"] == Bundle(root).digest
    assert main(["evaluate", str(root), "--data-dir", str(data), "--plot", str(tmp_path / "p.png")]) == 0
    out = capsys.readouterr().out
    for title in (
        "Each exit alone",
        "Operating points",
        "Forwarded at the default",
        "Latency in microseconds",
        "Baselines without",
    ):
        assert title in out
    assert f"{result['operating_points']['default']['accuracy']:.2%}" in out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_wrong_criterion_and_missing_data_are_said(tmp_path: Path, data: Path, capsys: Captured) -> None:
    root = write_tiny(tmp_path / "tiny")
    assert main(["calibrate", str(root), "--data-dir", str(data), "--criterion", "margn"]) == 2
    assert main(["evaluate", str(root), "--data-dir", str(tmp_path)]) == 2
    sentences = capsys.readouterr().err.splitlines()
    assert len(sentences) == 2 and all(re.fullmatch(r"offramp: .+\.", line) for line in sentences)


def test_train_and_build(tmp_path: Path, data: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.models import MODELS

    monkeypatch.setitem(MODELS, "small", small)
    recipe, weights = str(write_recipe(tmp_path / "recipe.yaml")), str(tmp_path / "w.npz")
    common = ["--data-dir", str(data), "--threads", "1"]
    assert main(["train", recipe, "--out", weights, *common]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{weights}: weights of epoch ")
    assert captured.err  # progress
    out = tmp_path / "bundle"
    assert main(["build", recipe, "--out", str(out), "--weights", weights, "--quiet", "--json", *common]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["digest"] == Bundle(out).digest
    assert captured.err == ""


@pytest.mark.parametrize("command", ["build", "train"])
def test_the_build_wing_is_asked_for_where_it_is_missing(
    command: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    assert main([command, "recipe.yaml", "--out", "x"]) == 2
    assert capsys.readouterr().err == (
        f"offramp: offramp {command} needs torch: install offramp with its extra 'build', as the README describes.\n"
    )
