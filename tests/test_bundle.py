import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from common.bundle import Bundle, write_manifest
from common.errors import BundleError
from tests.networks import edit_manifest, skip_manifest, write_skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_skip(tmp_path / "skip")
    return tmp_path / "skip"


def refused(root: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle(root).verify()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_reads_what_was_written(root: Path) -> None:
    bundle = Bundle(root)
    bundle.verify()
    assert bundle.name == f"skip@{bundle.digest}"
    assert bundle.manifest.live(0) == ("x",)
    assert bundle.manifest.live(2) == ("h1", "s")
    assert np.isnan(bundle.manifest.operating_points["full"].thresholds[0])


def test_a_changed_byte(root: Path) -> None:
    file = root / "stage2.onnx"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    assert "does not match its sha256" in refused(root)


def test_a_missing_file(root: Path) -> None:
    (root / "stage1.onnx").unlink()
    assert "stage1.onnx is missing" in refused(root)
    assert not Bundle(root).holds(1)


def test_a_missing_manifest(tmp_path: Path) -> None:
    assert "manifest.json is missing" in refused(tmp_path)


@pytest.mark.parametrize("file", ["../stage0.onnx", "/etc/passwd", "a\\b", "..", "a\nb", "\ud800", "a\0b"])
def test_a_path_that_leaves(root: Path, file: str) -> None:
    stages = json.loads((root / "manifest.json").read_text())["stages"]
    stages[0]["file"] = file
    edit_manifest(root, stages=stages)
    assert "must be a path inside the bundle" in refused(root)


def test_a_link_that_leaves(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    outside.write_bytes((root / "stage0.onnx").read_bytes())
    (root / "stage0.onnx").unlink()
    (root / "stage0.onnx").symlink_to(outside)
    assert "leads out of the bundle" in refused(root)


def test_a_link_to_itself(root: Path) -> None:
    (root / "stage0.onnx").unlink()
    (root / "stage0.onnx").symlink_to("stage0.onnx")
    assert "its links lead nowhere" in refused(root)


@pytest.mark.parametrize("file", ["manifest.json", "stage0.onnx"])
def test_a_pipe_in_place_of_a_file(root: Path, file: str) -> None:
    (root / file).unlink()
    os.mkfifo(root / file)
    assert "is not a regular file" in refused(root)


def test_a_file_beyond_what_onnx_can_hold(root: Path) -> None:
    with open(root / "stage0.onnx", "r+b") as file:
        file.truncate(200 << 30)  # sparse
    assert "At most 2147483647 are accepted" in refused(root)


def test_external_data(root: Path) -> None:
    weight = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="elsewhere.bin")
    inner = helper.make_graph([], "then", [], [], [weight])
    outer = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    for graph in (
        helper.make_graph([], "g", [], [], [weight]),
        helper.make_graph([outer], "g", [], []),
        helper.make_graph([helper.make_node("Constant", [], ["w"], value=weight)], "g", [], []),
    ):
        raw = helper.make_model(graph).SerializeToString()
        replace_stage(root, raw)
        assert "refers to external data" in refused(root)


def replace_stage(root: Path, raw: bytes) -> None:
    import hashlib

    (root / "stage0.onnx").write_bytes(raw)
    stages = json.loads((root / "manifest.json").read_text())["stages"]
    stages[0]["sha256"] = hashlib.sha256(raw).hexdigest()
    edit_manifest(root, stages=stages)


@pytest.mark.parametrize(
    "raw", [b"not onnx at all", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x3a\x05ab"]
)
def test_no_onnx(root: Path, raw: bytes) -> None:
    replace_stage(root, raw)
    assert "is not an ONNX file" in refused(root)


def test_a_newer_format(root: Path) -> None:
    edit_manifest(root, format_version=2, novelty=True)
    assert "has format version 2" in refused(root)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format_version": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, '{"a": 1e999}', "\u00e9"]
)
def test_no_json(root: Path, text: str) -> None:
    (root / "manifest.json").write_text(text, encoding="latin-1")
    assert refused(root).startswith("manifest.json")


def test_a_pinned_digest(root: Path) -> None:
    digest = Bundle(root).digest
    assert Bundle(root, digest=digest).digest == digest
    with pytest.raises(BundleError, match="asks for sha256:00"):
        Bundle(root, digest="sha256:" + "0" * 64)


def wrong(document: dict[str, Any], *path: Any, value: Any) -> dict[str, Any]:
    document = json.loads(json.dumps(document))
    at: Any = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("novelty",), 1, "novelty is not a known key"),
        (("stages", 0, "sha256"), "ab", "64 hexadecimal digits"),
        (("stages", 1, "reads"), ["x"], "does not cross the cut before it"),
        (("stages", 2, "writes"), ["h2", "logits9"], "not described under tensors"),
        (("cuts",), [], "4 stages need 3"),
        (("cuts", 0, "tensors", 0, "codec"), "u9", "one of raw, u8"),
        (("cuts", 1, "tensors", 0, "name"), "h2", "nobody has written"),
        (("exits", 1, "stage"), 1, "The exit lies at stage 2"),
        (("exits", 0, "temperature"), 0, "a number above 0"),
        (("exits", 0, "logits"), "h0", "one number per class"),
        (("exits", 0, "gate"), "h2", "gate 'h2' is not written by stage 0"),
        (("exits", 0, "gate"), "h0", "one floating-point number per row"),
        (
            ("operating_points", "default"),
            {"criterion": "gate", "thresholds": [None, 0.5, 0.0]},
            r"thresholds\[1\] must be null: exits\[1\] has no gate",
        ),
        (("exits", 1, "combine"), {"weights": [1.0], "bias": [0.0] * 5}, "weights has 1 numbers. It needs 2"),
        (("exits", 1, "combine"), {"weights": [1.0, 0.5], "bias": [0.0] * 4}, "bias has 4 numbers. It needs 5"),
        (("exits", 1, "combine"), {"weights": [1.0, -0.5], "bias": [0.0] * 5}, "numbers from 0"),
        (("operating_points", "default", "combine"), "early", r"combine is early, but exits\[0\] has no combine"),
        (("operating_points", "default", "gates"), [None] * 3, "for criterion gate only"),
        (
            ("operating_points", "default"),
            {"criterion": "patience", "thresholds": [1.5, 2, 1]},
            r"thresholds\[0\]: A patience threshold is 1.5. It must be a whole number from 1",
        ),
        (("stages", 3, "exit"), None, "numbered 0, 1"),
        (("operating_points", "default", "thresholds"), [0.9, 0.0], "2 entries for 3 exits"),
        (("operating_points", "default", "thresholds"), [1.9, 0.8, 0.0], "must lie between 0 and 1"),
        (("operating_points", "default", "thresholds"), [0.9, 0.8, 0.5], "must end with 0"),
        (("operating_points", "full", "thresholds"), [0.1, None, 0.0], "must have null"),
        (
            ("operating_points", "default", "criterion"),
            "luck",
            "one of entropy, gate, margin, max-probability, patience",
        ),
        (("input", "tensors"), [], "at least one tensor"),
        (("tensors", "x", "dtype"), "complex64", "one of bool"),
        (("name",), "a/b", "a name of letters"),
        (("operating_points", "full", "measured"), {"exit_rates": [1, "a"]}, r"exit_rates\[1\] is 'a'"),
        (("operating_points", "full", "configuration"), {"coded_cuts": 5}, "coded_cuts is 5"),
        (("format_version",), 0, "a whole number from 1"),
        (("input", "tensors"), ["x", "x"], "names 'x' twice"),
        (("cuts", 2, "tensors"), [{"name": "h2"}, {"name": "h2"}], r"cuts\[2\]\.tensors names 'h2' twice"),
        (("exits", 0, "temperature"), 10**400, "a finite number"),
        (("tensors", "x", "shape"), [10**400], "a whole number"),
        (("stages", 0, "flops"), -1, "a whole number from 0"),
    ],
)
def test_a_manifest_that_does_not_add_up(tmp_path: Path, path: tuple[Any, ...], value: Any, sentence: str) -> None:
    good = skip_manifest([b"", b"", b"", b""])
    with pytest.raises(BundleError, match=sentence):
        write_manifest(tmp_path, wrong(good, *path, value=value))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("coding", "sentence"),
    [
        ({"codec": "u8", "low": 0.0}, "both low and high"),
        ({"codec": "u8", "low": 1.0, "high": 1.0}, "low must be below high"),
        ({"codec": "u8", "low": "a", "high": 1.0}, "low is 'a'. It must be a finite number"),
        ({"codec": "raw", "low": 0.0, "high": 1.0}, "raw has no use for"),
        ({"codec": "float16", "low": 0.0, "high": 1.0}, "float16 has no use for"),
        ({"codec": "u8", "low": [0.0] * 6, "high": [1.0] * 6}, "must be one number each, as u8 has them"),
        ({"codec": "u4c", "low": 0.0, "high": 1.0}, "must be lists of 6 numbers, one per channel, as u4c has them"),
        ({"codec": "u4c", "low": [0.0] * 5, "high": [1.0] * 5}, "must be lists of 6 numbers"),
        ({"codec": "u4c", "low": [0.0] * 6, "high": [1.0] * 5}, "as many values in low as in high"),
        ({"codec": "u4c", "low": [0.0] * 6, "high": 1.0}, "as many values in low as in high"),
        ({"codec": "u4c", "low": [0.0] * 6, "high": [1.0] * 5 + [0.0]}, "low must be below high"),
        ({"compression": "gzip"}, "one of none, zstd, lz4"),
    ],
)
def test_codes_that_do_not_fit_their_tensor(tmp_path: Path, coding: dict[str, Any], sentence: str) -> None:
    manifest = skip_manifest([b"", b"", b"", b""])
    manifest["cuts"][2]["tensors"][0] |= coding
    with pytest.raises(BundleError, match=sentence):
        write_manifest(tmp_path, manifest)


def test_per_channel_needs_channels_and_codes_need_floats(tmp_path: Path) -> None:
    manifest = skip_manifest([b"", b"", b"", b""])
    manifest["cuts"][2]["tensors"][0]["codec"] = "u8c"
    manifest["tensors"]["h2"] = {"dtype": "float32", "shape": ["tokens", 6]}
    with pytest.raises(BundleError, match="no fixed first axis"):
        write_manifest(tmp_path, manifest)
    manifest["tensors"]["h2"] = {"dtype": "int32", "shape": [6]}
    with pytest.raises(BundleError, match="Only float activations"):
        write_manifest(tmp_path, manifest)


def test_ranges_per_channel_are_read_back(tmp_path: Path) -> None:
    manifest = skip_manifest([b"", b"", b"", b""], codec="u4c", compression="lz4")
    manifest["cuts"][2]["tensors"][0] |= {"low": [0.0] * 6, "high": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    write_manifest(tmp_path, manifest)
    (how,) = Bundle(tmp_path).manifest.cuts[2]
    assert (how.codec, how.compression) == ("u4c", "lz4")
    assert how.low == (0.0,) * 6 and how.high == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
