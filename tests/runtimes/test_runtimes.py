"""Runtimes by name: what is here, what is not, and one sentence about it."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from common.errors import BundleError, ConfigError
from common.manifest import TensorSpec
from common.runtimes import RUNTIMES, candidates, configured, openvino, precision_of, runtime_named
from common.runtimes.onnx import OnnxStage, providers
from common.runtimes.runner import zeros
from tests.networks import edit_manifest, write_skip
from tests.serving.chains import inputs


def test_names_and_precisions() -> None:
    assert list(RUNTIMES) == ["onnxruntime", "openvino", "openvino-bf16"]
    assert [precision_of(name) for name in RUNTIMES] == ["float32", "float32", "bfloat16"]
    assert {"onnxruntime", "openvino"} <= set(candidates("float32"))
    assert set(candidates("bfloat16")) == {"openvino-bf16"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "onnx",
            "runtime is 'onnx'. It must be one of onnxruntime, openvino, openvino-bf16 or onnxruntime:PROVIDER.",
        ),
        ("onnxruntime:abacus", "runtime is 'onnxruntime:abacus', which the installed onnxruntime lacks. It has"),
        ("onnxruntime:", "which the installed onnxruntime lacks"),
        ("onnxruntime:azure", "which the installed onnxruntime lacks"),
    ],
)
def test_a_runtime_that_is_not_here(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        runtime_named(name)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_openvino_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "installed", lambda: False)
    for name in ("openvino", "openvino-bf16"):
        with pytest.raises(ConfigError, match="not installed: install offramp with its extra 'openvino'"):
            runtime_named(name)


def test_the_cpu_provider_is_the_default_runtime(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    runner = runtime_named("onnxruntime:cpu")(bundle, 0, 1)
    assert (runner.runtime, runner.precision) == ("onnxruntime", "float32")


def test_a_provider_that_does_not_start_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime itself falls back to the CPU and warns; a tier that was told to use a GPU must not."""
    bundle, _ = write_skip(tmp_path)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    session = onnxruntime.InferenceSession

    def fall_back(model: bytes, options: object, providers: list[tuple[str, dict[str, str]]]) -> object:
        asked.extend(providers)
        return session(model, options, providers=["CPUExecutionProvider"])

    asked: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
    assert providers() == {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
    assert "onnxruntime:cuda" in candidates("float32")
    with pytest.raises(ConfigError, match="CUDAExecutionProvider does not start on this machine"):
        runtime_named("onnxruntime:cuda")(bundle, 0, 1)
    assert asked == [("CUDAExecutionProvider", {"use_tf32": "0"}), ("CPUExecutionProvider", {})]


def test_an_install_without_openvino_never_imports_it(tmp_path: Path) -> None:
    write_skip(tmp_path)
    script = (
        "import sys; from common.bundle import Bundle; from common.serving.stages import load_stages;"
        f"load_stages(Bundle({str(tmp_path)!r}), start=0, stop=4, runtime='onnxruntime', threads=1);"
        "sys.exit('openvino' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def test_files_that_differ_from_the_manifest(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    with pytest.raises(BundleError, match=r"has outputs \['h1'\]. The manifest names \['h2', 'logits1'\]"):
        OnnxStage(bundle.stage_bytes(1), replace_reads(bundle.manifest.stages[2], ("h0",)))


def replace_reads(stage: object, reads: tuple[str, ...]) -> object:
    from dataclasses import replace

    return replace(stage, reads=reads)  # type: ignore[type-var]


def test_zeros_take_the_smallest_bucket(tmp_path: Path) -> None:
    write_skip(tmp_path)
    document_tensors = {name: {"dtype": "float32", "shape": [6]} for name in ("h0", "s", "h1", "h2")}
    document_tensors |= {f"logits{k}": {"dtype": "float32", "shape": [5]} for k in range(3)}
    edit_manifest(
        tmp_path,
        tensors=document_tensors | {"x": {"dtype": "int64", "shape": ["tokens", 2]}},
        buckets={"tokens": [32, 16, 64]},
    )
    from common.bundle import Bundle

    (x,) = zeros(Bundle(tmp_path).manifest, 0, 3).values()
    assert x.shape == (3, 16, 2) and x.dtype == np.int64


@pytest.mark.openvino
@pytest.mark.parametrize(("name", "close"), [("openvino", 1e-4), ("openvino-bf16", 0.05)])
def test_openvino_computes_the_same(tmp_path: Path, name: str, close: float) -> None:
    if name == "openvino-bf16" and not openvino.supports("bfloat16"):
        pytest.skip("this CPU has no bfloat16 instructions")
    bundle, reference = write_skip(tmp_path)
    runners = [runtime_named(name)(bundle, stage, 1) for stage in range(4)]
    assert {(r.runtime, r.precision) for r in runners} == {("openvino", precision_of(name))}
    for rows in (1, 2, 33, 1):  # the batch is free, and changes back and forth
        x_BD = inputs(rows, seed=rows)
        live = {"x": x_BD}
        for runner in runners:
            live |= runner.run(live)
        for number, wanted in enumerate(reference.logits(x_BD)):
            scale = max(1.0, np.abs(wanted).max())
            assert np.abs(live[f"logits{number}"] - wanted).max() <= close * scale


@pytest.mark.openvino
def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    """Its package for telemetry asks for a network address at import, and leaves an identifier in the home."""
    write_skip(tmp_path / "skip")
    script = (
        "import os, socket, sys; from common.bundle import Bundle; from common.runtimes import runtime_named;"
        "socket.getaddrinfo = lambda *args, **kwargs: os._exit(3);"
        f"runtime_named('openvino')(Bundle({str(tmp_path / 'skip')!r}), 0, 1);"
        "import openvino.tools.ovc.telemetry_utils as used;"
        "sys.exit('openvino_telemetry' in sys.modules or 'stub' not in used.tm.__name__)"
    )
    home = tmp_path / "home"
    home.mkdir()
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root, env=os.environ | {"HOME": str(home)})
    assert list(home.iterdir()) == []


@pytest.mark.openvino
def test_openvino_outputs_outlive_the_next_run(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    runner = runtime_named("openvino")(bundle, 0, 1)
    first = runner.run({"x": inputs(4, seed=1)})
    before = {name: array.copy() for name, array in first.items()}
    runner.run({"x": inputs(4, seed=2)})
    for name, array in first.items():
        assert np.array_equal(array, before[name])


@pytest.mark.openvino
def test_openvino_refuses_what_is_no_network(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    with pytest.raises(BundleError, match=r"stage0\.onnx cannot be loaded by openvino"):
        openvino.OpenvinoStage(b"garbage", bundle.manifest.stages[0])
    with pytest.raises(BundleError, match=r"has outputs \['h1'\]"):
        openvino.OpenvinoStage(bundle.stage_bytes(1), replace_reads(bundle.manifest.stages[2], ("h0",)))  # type: ignore[arg-type]


@pytest.mark.openvino
def test_a_cpu_without_bfloat16_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "supports", lambda precision: precision == "float32")
    runtime_named("openvino")
    with pytest.raises(ConfigError, match="no instructions for bfloat16"):
        runtime_named("openvino-bf16")


def test_the_runtime_of_a_configuration() -> None:
    assert configured(None) == configured({}) == "onnxruntime"
    assert configured({"runtime": "onnxruntime", "precision": "float32"}) == "onnxruntime"
    assert configured({"runtime": "openvino", "precision": "float32"}) == "openvino"
    assert configured({"runtime": "openvino", "precision": "bfloat16"}) == "openvino-bf16"
    assert configured({"runtime": "onnxruntime:cuda", "precision": "float32"}) == "onnxruntime:cuda"
    assert configured({"runtime": "other", "precision": "int8"}) == "other"


def test_a_mask_that_crosses_has_a_real_token_whatever_it_means() -> None:
    """nn.TransformerEncoderLayer takes `mask == 0`: with ones alone every token would be filling, and logits NaN."""
    spec = partial(TensorSpec, shape=("tokens",))
    tensors = {"ids": spec(name="ids", dtype="int64"), "pad": spec(name="pad", dtype="bool")}
    tensors["h"] = TensorSpec(name="h", dtype="float32", shape=("tokens", 2))
    manifest: Any = SimpleNamespace(tensors=tensors, inputs=("ids",), buckets={"tokens": (4, 8)}, stages=())
    found = zeros(manifest, 1, 2, tensors)
    assert found["ids"].tolist() == [[1] * 4] * 2 and not found["h"].any()
    assert found["pad"].tolist() == [[True, False, False, False]] * 2
