import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.address import Address, parse_address
from common.config import SystemConfig, load_config, resolve
from common.errors import ConfigError
from common.limits import DEFAULT_LIMITS

ROOT = Path(__file__).parent.parent
POINTS = ("default", "full")


def three_tiers() -> dict[str, Any]:
    return {
        "bundle": "net",
        "tiers": {
            "device": {"stages": 1, "rest": "127.0.0.1:8000", "ops": "127.0.0.1:8100"},
            "edge": {"stages": 1, "grpc": "127.0.0.1:50051"},
            "cloud": {"stages": "rest", "grpc": "127.0.0.1:50052"},
        },
    }


def write(directory: Path, document: object) -> Path:
    (directory / "net").mkdir(exist_ok=True)
    path = directory / "tiers.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False))
    return path


def load(
    directory: Path, document: object, environ: dict[str, str] | None = None, *, stages: int = 3, **more: Any
) -> SystemConfig:
    file = load_config(write(directory, document), environ or {})
    return resolve(file, num_stages=stages, operating_points=POINTS, **more)


def refusal(directory: Path, document: object, environ: dict[str, str] | None = None, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(directory, document, environ, **more)
    message = str(caught.value)
    assert str(directory / "tiers.yaml") in message
    assert "\n" not in message and message.endswith(".")
    return message


def changed(**changes: Any) -> dict[str, Any]:
    """The three tiers with `edge={"key": value}` merged in; None removes a key."""
    document = three_tiers()
    for name, keys in changes.items():
        section = document["tiers"][name]
        for key, value in keys.items():
            if value is None:
                del section[key]
            else:
                section[key] = value
    return document


def test_ranges_and_addresses_of_three_tiers(tmp_path: Path) -> None:
    config = load(tmp_path, three_tiers(), stages=5)
    assert [(t.name, t.first, t.start, t.stop) for t in config.tiers] == [
        ("device", True, 0, 1),
        ("edge", False, 1, 2),
        ("cloud", False, 2, 5),
    ]
    assert config.tier("device").rest == Address(host="127.0.0.1", port=8000)
    assert [[str(a) for a in t.upstream] for t in config.tiers] == [["127.0.0.1:50051"], ["127.0.0.1:50052"], []]
    assert config.operating_point == "default"
    assert config.bundle == tmp_path / "net"


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    edge = load(tmp_path, three_tiers()).tier("edge")
    assert (edge.upstream_timeout_ms, edge.upstream_protocol, edge.runtime, edge.threads) == (
        1000,
        "tier",
        "onnxruntime",
        1,
    )
    assert (edge.limits, edge.drain_seconds, edge.rest, edge.ops) == (DEFAULT_LIMITS, 10.0, None, None)


def test_every_key_is_read(tmp_path: Path) -> None:
    keys = {
        "upstream": ["cloud.example:1", "10.0.0.1:2"],
        "upstream_timeout_ms": 80,
        "upstream_protocol": "tier-unary",
        "runtime": "onnxruntime",
        "threads": 2,
        "workers": 3,
        "rest": "127.0.0.1:8002",
        "limits": {"queue_rows": 7},
        "drain_seconds": 0.5,
    }
    edge = load(tmp_path, changed(edge=keys)).tier("edge")
    assert [str(a) for a in edge.upstream] == ["cloud.example:1", "10.0.0.1:2"]
    assert (edge.upstream_timeout_ms, edge.threads, edge.workers, edge.drain_seconds) == (80, 2, 3, 0.5)
    assert edge.limits.queue_rows == 7
    assert edge.limits.batch_rows == DEFAULT_LIMITS.batch_rows


def test_a_relay_and_a_single_tier(tmp_path: Path) -> None:
    relay = load(tmp_path, changed(edge={"stages": 0})).tier("edge")
    assert relay.start == relay.stop == 1
    alone = {"bundle": "net", "tiers": {"all": {"stages": "rest", "grpc": "127.0.0.1:1"}}}
    assert (load(tmp_path, alone).tiers[0].start, load(tmp_path, alone).tiers[0].stop) == (0, 3)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (changed(edge={"grcp": "127.0.0.1:1"}), "tiers.edge.grcp is not a known key. The nearest key is 'grpc'."),
        ({**three_tiers(), "operating_pont": "full"}, "The nearest key is 'operating_point'."),
        ({**three_tiers(), "operating_point": "defualt"}, "The nearest operating point is 'default'."),
        (changed(edge={"a\nb": 1}), r"tiers.edge.'a\nb' is not a known key"),
        (changed(edge={7: 1}), "tiers.edge.7 is not a known key"),
        ({**three_tiers(), "plan": {}}, "plan is reserved"),
        ({**three_tiers(), "audit": 1}, "audit is reserved"),
        (changed(edge={"views": 2}), "tiers.edge.views is reserved"),
        ({**three_tiers(), "digest": "sha256:xyz"}, "digest is 'sha256:xyz'. It must be"),
        ({**three_tiers(), "tiers": {}}, "tiers must name at least one tier"),
        ({**three_tiers(), "tiers": []}, "tiers is []. It must be a mapping"),
        ({"tiers": {}}, "bundle is missing"),
        ({"bundel": "net", "tiers": {}}, "bundle is missing. The nearest key there is 'bundel'."),
        ({**three_tiers(), "bundle": "nothing"}, "bundle is 'nothing', and there is no directory"),
        (changed(edge={"grpc": None}), "tiers.edge.grpc is missing, so that device cannot reach it"),
        (changed(device={"rest": None}), "tiers.device has neither rest nor grpc"),
        (changed(edge={"stages": None}), "tiers.edge.stages is missing"),
        (changed(edge={"stages": "rest"}), "tiers.edge.stages is rest, which only the last tier (cloud)"),
        (changed(edge={"stages": -1}), "tiers.edge.stages is -1. It must be a whole number"),
        (changed(edge={"stages": 1.5}), "tiers.edge.stages is 1.5"),
        (changed(edge={"stages": True}), "tiers.edge.stages is True"),
        (changed(edge={"stages": 9}), "add up to 10"),
        (changed(edge={"stages": 2}), "the tiers before it run all 3 stages already"),
        (changed(cloud={"stages": 2}), "add up to 4"),
        (changed(cloud={"stages": 0}), "The last tier must run at least one stage"),
        (changed(edge={"stages": 0, "grpc": "localhost"}), "must be host:port"),
        (changed(edge={"grpc": "localhost:99999"}), "has port '99999'"),
        (changed(edge={"grpc": "local host:1"}), "has host 'local host'"),
        (changed(edge={"grpc": "1.2.3.256:1"}), "not an IPv4 address"),
        (changed(edge={"grpc": 50051}), "tiers.edge.grpc is 50051. It must be host:port"),
        (changed(edge={"grpc": "0.0.0.0:1"}), "tiers.edge.grpc (0.0.0.0:1) is a wildcard"),
        (changed(edge={"grpc": "[::]:1"}), "tiers.edge.grpc ([::]:1) is a wildcard"),
        (changed(edge={"grpc": "127.0.0.1:0"}), "is any free port"),
        (changed(edge={"upstream": []}), "tiers.edge.upstream is []"),
        (changed(edge={"upstream": ["cloud:0"]}), "port 0 cannot be"),
        (changed(edge={"upstream": "0.0.0.0:1"}), "must be dialled, and 0.0.0.0 cannot be"),
        (changed(edge={"upstream": ["c:1", "c:1"]}), "must name each address once"),
        (changed(cloud={"upstream": "other:1"}), "the last tier forwards nothing"),
        (changed(edge={"upstream_timeout_ms": 0}), "whole number from 10"),
        (changed(edge={"upstream_timeout_ms": -250}), "tiers.edge.upstream_timeout_ms is -250"),
        (changed(edge={"upstream_protocol": "oip"}), "reserved for a later version"),
        (changed(edge={"upstream_protocol": "http"}), "must be tier or tier-unary"),
        (changed(edge={"threads": 0}), "whole number from 1 to 256"),
        (changed(edge={"workers": 2}), "tiers.edge.workers is 2. Workers share the rest address, and there is none."),
        (changed(edge={"runtime": 5}), "must be text"),
        (changed(edge={"drain_seconds": -1}), "must be a number from 0"),
        (changed(edge={"drain_seconds": float("nan")}), "tiers.edge.drain_seconds is nan"),
        (changed(edge={"limits": {"queue_row": 3}}), "tiers.edge.limits.queue_row is not a known key. The nearest"),
        (changed(edge={"limits": {"queue_rows": -3}}), "tiers.edge.limits.queue_rows is -3"),
        (changed(edge={"limits": 3}), "tiers.edge.limits is 3. It must be a mapping"),
        (changed(device={"ops": "127.0.0.1:8000"}), "tiers.device.ops is 127.0.0.1:8000, which rest has already"),
        ("- a\n- b\n", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("bundle: [", "line 1 cannot be read as YAML"),
        ("bundle: net\nbundle: net\n", "line 2 cannot be read as YAML: the key 'bundle' appears twice"),
        ("a: &x 1\nb: *x\n", "aliases (*name) are not accepted"),
        ("bundle: net\n---\nbundle: net\n", "a second document starts here"),
        ("? [1]\n: 2\n", "a key must be plain text"),
        ("bundle: !!python/object:os.system x\n", "cannot be read as YAML"),
        ("bundle: 2001-99-99\n", "cannot be read as YAML"),
        ("[" * 5000, "nested too deeply"),
        ("#" * (1 << 20) + "\n", "more than 1048576 bytes"),
        ("a: \x00\n", "cannot be read as YAML"),
    ],
)
def test_each_mistake_gets_one_sentence(tmp_path: Path, document: object, words: str) -> None:
    assert words in refusal(tmp_path, document)


@pytest.mark.parametrize("name", ["9", "a b", "", "é", "-x", "a" * 64, 7, True, None])
def test_a_tier_name_is_plain(tmp_path: Path, name: object) -> None:
    document = {"bundle": "net", "tiers": {name: {"stages": "rest", "grpc": "127.0.0.1:1"}}}
    assert "A name must start with a letter" in refusal(tmp_path, document)


def test_two_names_may_not_share_their_variables(tmp_path: Path) -> None:
    tiers = {"edge-1": {"stages": 1, "grpc": "127.0.0.1:1"}, "Edge_1": {"stages": "rest", "grpc": "127.0.0.1:2"}}
    assert "OFFRAMP_EDGE_1_*" in refusal(tmp_path, {"bundle": "net", "tiers": tiers})


def test_a_tier_must_be_a_mapping(tmp_path: Path) -> None:
    document = {"bundle": "net", "tiers": {"device": None}}
    assert "tiers.device is None. It must be a mapping" in refusal(tmp_path, document)


def test_an_unknown_runtime_names_the_nearest(tmp_path: Path) -> None:
    message = refusal(tmp_path, changed(edge={"runtime": "onnx"}), runtimes=("onnxruntime", "openvino"))
    assert "The nearest runtime is 'onnxruntime'." in message


def test_an_unknown_tier_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no tier 'egde'\. The nearest tier is 'edge'"):
        load(tmp_path, three_tiers()).tier("egde")


def test_a_missing_file_and_one_that_is_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.yaml does not exist\.$"):
        load_config(tmp_path / "absent.yaml", {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path, {})
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(tmp_path / "binary.yaml", {})


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    config = load(
        tmp_path,
        three_tiers(),
        {
            "OFFRAMP_DEVICE_REST": "0.0.0.0:80",
            "OFFRAMP_DEVICE_UPSTREAM": "edge-a:1, edge-b:2",
            "OFFRAMP_EDGE_GRPC": "[::1]:7",
            "OFFRAMP_CLOUD_OPS": "localhost:9",
            "OFFRAMP_BUNDLE": str(tmp_path / "other"),
            "OFFRAMP_EDGE_OPS": "",
        },
    )
    assert str(config.tier("device").rest) == "0.0.0.0:80"
    assert [str(a) for a in config.tier("device").upstream] == ["edge-a:1", "edge-b:2"]
    assert str(config.tier("edge").grpc) == "[::1]:7"
    assert str(config.tier("cloud").ops) == "localhost:9"
    assert config.tier("edge").ops is None
    assert config.bundle == tmp_path / "other"


def test_an_overridden_listen_address_is_what_the_tier_before_dials(tmp_path: Path) -> None:
    config = load(tmp_path, three_tiers(), {"OFFRAMP_EDGE_GRPC": "127.0.0.1:7"})
    assert [str(a) for a in config.tier("device").upstream] == ["127.0.0.1:7"]


def test_a_wrong_override_is_named(tmp_path: Path) -> None:
    assert "OFFRAMP_EDGE_GRPC is 'x'. It must be host:port" in refusal(
        tmp_path, three_tiers(), {"OFFRAMP_EDGE_GRPC": "x"}
    )
    assert "OFFRAMP_BUNDLE is 'x'" in refusal(tmp_path, three_tiers(), {"OFFRAMP_BUNDLE": "x"})


def test_an_override_without_effect_gets_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(tmp_path, three_tiers(), {"OFFRAMP_EGDE_GRPC": "h:1", "OFFRAMP_EDGE_SERVICE_PORT_GRPC": "1"})
    assert [record.message for record in caplog.records] == [
        f"OFFRAMP_EGDE_GRPC names no tier of {tmp_path / 'tiers.yaml'} and has no effect. "
        "Did you mean OFFRAMP_EDGE_GRPC?"
    ]


def test_the_bundle_is_looked_for_here_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    (here / "net").mkdir(parents=True)
    path = write(tmp_path, three_tiers())
    monkeypatch.chdir(here)
    assert load_config(path, {}).bundle.resolve() == here / "net"
    (here / "net").rmdir()
    assert load_config(path, {}).bundle == tmp_path / "net"


@pytest.mark.parametrize("text", ["127.0.0.1:8000", "[::1]:0", "edge:50051", "a.b-c.example:65535", "my_host:1"])
def test_an_address_reads_back_as_written(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text", ["", ":1", "a", "a:", "a:-1", "a:+1", "a:1 ", "::1:80", "[::1]", "[x]:1", "a/b:1", "-a:1"]
)
def test_a_wrong_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|has"):
        parse_address(text)


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").glob("tiers*.yaml")), ids=lambda path: path.name)
def test_the_shipped_examples_are_right(path: Path, tmp_path: Path) -> None:
    file = load_config(path, {"OFFRAMP_BUNDLE": str(tmp_path)})
    assert resolve(file, num_stages=3, operating_points=POINTS).tiers[-1].stop == 3
