"""The example configurations in deploy/, and what docker-compose.yml takes from them."""

from pathlib import Path

import pytest
import yaml

from common.config import SystemConfig, load_config, resolve

ROOT = Path(__file__).resolve().parents[1]
TIERS = {
    "tiers.yaml": {"device": (0, 1), "edge": (1, 2), "cloud": (2, 3)},
    "tiers.fashion.yaml": {"device": (0, 1), "edge": (1, 2), "cloud": (2, 3)},
    "tiers.compose.yaml": {"device": (0, 1), "edge": (1, 2), "cloud": (2, 3)},
    "tiers.two.yaml": {"device": (0, 1), "cloud": (1, 3)},
    "tiers.four.yaml": {"device": (0, 1), "gateway": (1, 1), "edge": (1, 2), "cloud": (2, 3)},
}


def load(name: str, bundle: Path) -> SystemConfig:
    file = load_config(ROOT / "deploy" / name, {"OFFRAMP_BUNDLE": str(bundle)})
    return resolve(file, num_stages=3, operating_points=["default", "full"])


def test_every_example_is_listed_here() -> None:
    assert {path.name for path in (ROOT / "deploy").glob("tiers*.yaml")} == set(TIERS)


@pytest.mark.parametrize("name", TIERS)
def test_an_example_splits_three_stages(name: str, tmp_path: Path) -> None:
    config = load(name, tmp_path)
    assert {tier.name: (tier.start, tier.stop) for tier in config.tiers} == TIERS[name]
    assert all(tier.ops is not None for tier in config.tiers)


def test_compose_serves_each_tier_and_joins_only_neighbours(tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    config = load("tiers.compose.yaml", tmp_path)
    assert set(compose["services"]) == {tier.name for tier in config.tiers}
    for tier in config.tiers:
        service = compose["services"][tier.name]
        assert service["command"].split()[:2] == ["serve", tier.name]
        for address in tier.upstream:
            upstream = compose["services"][address.host]
            (hop,) = set(service["networks"]) & set(upstream["networks"])
            assert compose["networks"][hop] == {"internal": True}
