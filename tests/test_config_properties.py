"""Whatever stands in tiers.yaml, it is read or refused with one sentence."""

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import load_config, resolve
from common.errors import ConfigError

KEYS = (
    "stages grpc rest ops upstream upstream_timeout_ms upstream_protocol runtime threads workers limits drain_seconds"
)
KEYS += " views"
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just("127.0.0.1:1"), st.just("rest")
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
SECTIONS = st.dictionaries(st.sampled_from(KEYS.split()) | st.text(max_size=4) | st.integers(), VALUES)
DOCUMENTS = st.fixed_dictionaries(
    {
        "bundle": st.just(".") | VALUES,
        "tiers": st.dictionaries(st.text(max_size=6) | st.just("edge"), SECTIONS | VALUES),
    },
    optional={"digest": VALUES, "operating_point": VALUES, "plan": VALUES},
)


def check(text: str | bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tiers.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        try:
            config = resolve(load_config(path, {}), num_stages=3, operating_points=["default"])
        except ConfigError as error:
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
        else:
            assert config.tiers[-1].stop == 3


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS)
def test_any_values(document: dict[str, Any]) -> None:
    check(yaml.safe_dump(document, allow_unicode=True, sort_keys=False))


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="{}[]:,-&*!|>'\"%@` \n\tabc01#?", max_size=60))
def test_any_text(text: str) -> None:
    check(text)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    check(data)
