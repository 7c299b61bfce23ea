"""A tier composed from its section: which runtime it takes, and what it says about it."""

import logging
import socket
from pathlib import Path

import pytest
import yaml

from common.errors import ConfigError
from common.runtimes import openvino
from common.serving.server import TierServer, describe
from offramp.roles import compose
from offramp.system import load_system
from tests.networks import edit_manifest, skip_manifest, skip_models, write_skip

THREE = {
    "device": {"stages": 1, "rest": "127.0.0.1:0"},
    "edge": {"stages": 0, "grpc": "127.0.0.1:0", "upstream": ["127.0.0.1:9"], "runtime": "auto"},
    "cloud": {"stages": "rest", "grpc": "127.0.0.1:0"},
}


def composed(root: Path, tier: str, **settings: object) -> TierServer:
    """The tier, of a system whose tiers dial nobody that answers."""
    tiers = {name: dict(section) for name, section in THREE.items()}
    tiers["device"]["upstream"] = ["127.0.0.1:9"]
    tiers[tier] |= settings
    file = root / "tiers.yaml"
    file.write_text(yaml.safe_dump({"bundle": str(root / "skip"), "tiers": tiers}, sort_keys=False))
    return compose(load_system(file), tier)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_skip(tmp_path / "skip")
    return tmp_path


def test_a_tier_says_which_runtime_it_uses(root: Path) -> None:
    server = composed(root, "device")
    assert "stages 0..0 on onnxruntime in float32" in server.summary()
    (info,) = describe(server.tier, server.config).stages
    assert (info.stage, info.runtime, info.precision) == (0, "onnxruntime", "float32")


@pytest.mark.parametrize(
    ("picked", "precision", "name"),
    [
        ("onnxruntime", "float32", "onnxruntime"),
        ("onnxruntime:cuda", "float32", "onnxruntime:cuda"),
        ("openvino", "float32", "openvino"),
        ("openvino", "bfloat16", "openvino-bf16"),
    ],
)
def test_workers_get_the_runtime_that_was_picked(root: Path, picked: str, precision: str, name: str) -> None:
    server = composed(root, "device", runtime="auto", workers=2)
    (stage,) = server.tier.runners.values()
    stage.runtime, stage.precision = picked, precision
    assert server.runtime == name
    assert composed(root, "device", runtime="onnxruntime", workers=2).runtime == "onnxruntime"


@pytest.mark.openvino
def test_openvino_by_name(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle_point = skip_manifest(skip_models(write_skip(root / "skip")[1].weights))["operating_points"]
    bundle_point["default"]["configuration"] = {"runtime": "onnxruntime", "precision": "float32", "coded_cuts": []}
    edit_manifest(root / "skip", operating_points=bundle_point)
    with caplog.at_level(logging.WARNING):
        server = composed(root, "cloud", runtime="openvino")
    assert "stages 1..3 on openvino in float32" in server.summary()
    assert {info.runtime for info in describe(server.tier, server.config).stages} == {"openvino"}
    assert "runtime is openvino instead of onnxruntime" in caplog.text


@pytest.mark.openvino
def test_auto_keeps_to_the_precision_of_the_operating_point(root: Path) -> None:
    if not openvino.supports("bfloat16"):
        pytest.skip("this CPU has no bfloat16 instructions")
    points = skip_manifest(skip_models(write_skip(root / "skip")[1].weights))["operating_points"]
    points["default"]["configuration"] = {"runtime": "openvino", "precision": "bfloat16", "coded_cuts": []}
    edit_manifest(root / "skip", operating_points=points)
    assert "stages 1..3 on openvino in bfloat16" in composed(root, "cloud", runtime="auto").summary()
    assert "in float32" in composed(root, "cloud", runtime="openvino").summary()


def test_auto_is_a_choice_and_a_relay_loads_nothing(root: Path) -> None:
    assert composed(root, "cloud", runtime="auto").tier.runners.keys() == {0, 1, 2, 3}
    relay = composed(root, "edge")
    assert relay.tier.runners == {} and "; relay; " in relay.summary()


@pytest.mark.parametrize(
    ("runtime", "sentence"),
    [
        (
            "tensorflow",
            r"tiers\.cloud: runtime is 'tensorflow'. It must be one of onnxruntime, openvino, openvino-bf16, auto or",
        ),
        ("onnxruntime:abacus", r"tiers\.cloud: runtime is 'onnxruntime:abacus', which the installed onnxruntime lacks"),
    ],
)
def test_a_runtime_that_is_not_here(root: Path, runtime: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        composed(root, "cloud", runtime=runtime)


@pytest.mark.parametrize("door", ["grpc", "rest", "ops"])
async def test_an_address_that_cannot_be_opened_is_told_with_its_place(
    root: Path, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = composed(root, "device", **{door: address})
        with pytest.raises(ConfigError) as caught:
            await server.start()
        await server.stop()
        assert str(caught.value) == (
            f"{root}/tiers.yaml: tiers.device.{door} is {address}, which cannot be opened (Address already in use). "
            "It must be an address of this machine that nobody else listens on."
        )
        monkeypatch.setenv(f"OFFRAMP_DEVICE_{door.upper()}", address)
        server = composed(root, "device", **{door: "127.0.0.1:0"})
        with pytest.raises(ConfigError, match=f": OFFRAMP_DEVICE_{door.upper()} is {address}, which cannot be opened"):
            await server.start()
        await server.stop()
