import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torch import nn

from calibration.baselines import stored
from calibration.datasets import open_data
from common.bundle import Bundle
from common.errors import ConfigError
from tests.synthetic import CLASSES, SIDE
from tests.training.nets import write_recipe
from training.baselines import _network as starts
from training.baselines import planned
from training.build import build, train_weights
from training.models import MODELS
from training.recipe import load_recipe


def plain(*, width: float = 1.0, classes: int = CLASSES) -> nn.Module:
    """A network without exits, as a user or offramp brings it."""
    channels = max(1, round(8 * width))
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(channels * SIDE * SIDE, classes),
    )  # fmt: skip


def line() -> nn.Module:
    """One product: nothing in it can be cut."""
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, CLASSES))


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "plain", plain)
    monkeypatch.setitem(MODELS, "line", line)


def recipe_with(path: Path, **sections: Any) -> Path:
    document = yaml.safe_load(write_recipe(path).read_text()) | sections
    path.write_text(yaml.safe_dump(document))
    return path


def test_baselines_lie_beside_the_bundle_and_leave_it_as_it_is(tmp_path: Path, data: Path) -> None:
    listed = [{"name": "half", "model": "plain", "options": {"width": 0.5}}, {"name": "line", "model": "line"}]
    recipe = recipe_with(tmp_path / "recipe.yaml", baselines=listed)
    weights = tmp_path / "w.npz"
    train_weights(recipe, weights, data, threads=1, quiet=True)
    alone = build(recipe, tmp_path / "alone", data, weights=weights, quiet=True)
    both = build(recipe, tmp_path / "both", data, weights=weights, baselines=True, threads=1, quiet=True)
    assert alone["digest"] == both["digest"]
    document = json.loads((tmp_path / "both" / "baselines.json").read_text())
    assert [(one["name"], one["kind"]) for one in document["baselines"]] == [
        ("backbone", "backbone"),
        ("half", "static"),
        ("line", "static"),
    ]
    backbone, half, single = document["baselines"]
    assert single["flops"] == 2 * SIDE * SIDE * CLASSES
    assert half["model"]["factory"] == "plain" and half["parameters"] == 4 * 10 + 4 * 37 + 4 * 64 * 10 + 10
    assert half["flops"] == 2 * (64 * 4 * 9 + 64 * 16 * 9 + 256 * 10)
    assert backbone["flops"] < both["operating_points"]["full"]["mean_flops"]  # no early head
    assert backbone["training"]["epochs"] == 2
    assert not list(tmp_path.glob("*.checkpoint.npz"))
    shown = {one["name"]: one for one in both["baselines"]}
    assert list(shown) == ["float32", "int8", "backbone", "half", "line"]
    assert shown["half"]["accuracy"] > 0.3 and shown["half"]["latency"]["mean_us"] > 0
    assert set(both["as_accurate"]) == {"default", "full"}
    assert "`half`" in (tmp_path / "both" / "README.md").read_text()
    for path in (tmp_path / "both").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes()
    (one, *_) = stored(Bundle(tmp_path / "both"))
    image = np.zeros((3, 1, SIDE, SIDE), np.uint8)
    assert one.load().run({"image": image}).shape == (3, CLASSES)


def names(recipe: Path, data: Path) -> list[str]:
    source = load_recipe(recipe)
    return [one.name for one in planned(source, open_data(source.recipe.data, data))]


def test_a_network_with_a_width_has_a_family(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "recipe.yaml"
    wide = {"model": {"factory": "plain", "options": {"width": 2.0}}}
    assert names(recipe_with(path, **wide), data) == ["backbone", "width-0.25", "width-0.5", "width-0.75"]
    found = planned(load_recipe(path), open_data(load_recipe(path).recipe.data, data))
    assert [one.source.recipe.model.options["width"] for one in found] == [2.0, 0.5, 1.0, 1.5]
    assert names(recipe_with(path, **wide, baselines=[]), data) == ["backbone"]
    assert names(recipe_with(path), data) == ["backbone"]  # `small` has no width


def test_only_the_backbone_starts_from_the_recipes_weights(tmp_path: Path, data: Path) -> None:
    given = {name: value.numpy() for name, value in plain(width=2.0).state_dict().items()}
    np.savez(tmp_path / "given.npz", allow_pickle=False, **given)
    model = {"factory": "plain", "options": {"width": 2.0}, "weights": "given.npz"}
    source = load_recipe(recipe_with(tmp_path / "recipe.yaml", model=model))
    rows = open_data(source.recipe.data, data)
    official = rows.train
    backbone, *family = planned(source, rows)
    found = {name.rpartition("tensors.")[2]: value for name, value in starts(backbone, official).state_dict().items()}
    assert all(np.array_equal(found[name], value) for name, value in given.items())
    assert len(family) == 3 and all(one.source.recipe.model.weights is None for one in family)
    np.savez(tmp_path / "given.npz", allow_pickle=False, other=np.zeros(3))
    with pytest.raises(ConfigError, match=r"Baseline 'backbone': .*given\.npz has no weights"):
        planned(source, rows)


@pytest.mark.parametrize(
    ("training", "entry", "epochs"),
    [
        ({"recipe": "joint", "epochs": 2}, {}, 2),
        ({"recipe": "mixed", "backbone_epochs": 3, "epochs": 2}, {}, 5),
        ({"recipe": "exits-only", "backbone_epochs": 3, "epochs": 2}, {}, 3),
        ({"recipe": "exits-only", "epochs": 2}, {}, 2),
        ({"recipe": "joint", "epochs": 2, "rate_penalty": 0.5}, {"epochs": 7}, 7),
    ],
)
def test_a_baseline_gets_the_epochs_of_the_backbone(
    tmp_path: Path, data: Path, training: dict[str, Any], entry: dict[str, Any], epochs: int
) -> None:
    sections = {"training": training | {"batch_size": 64}, "baselines": [{"name": "b", "model": "plain", **entry}]}
    source = load_recipe(recipe_with(tmp_path / "recipe.yaml", **sections))
    static = planned(source, open_data(source.recipe.data, data))[1].source.recipe.training
    assert (static.recipe, static.epochs, static.batch_size) == ("joint", epochs, 64)
    assert static.model_dump()["rate_penalty"] == 0.0


def test_a_baseline_takes_batches_of_the_bundles_size_where_the_recipe_says_none(tmp_path: Path, data: Path) -> None:
    """256 rows a batch are two steps an epoch on few rows: the backbone learns nothing while the bundle does."""
    source = load_recipe(recipe_with(tmp_path / "recipe.yaml", training={"epochs": 3, "optimizer": "sgd"}))
    (backbone,) = planned(source, open_data(source.recipe.data, data))
    plain = backbone.source.recipe.training
    assert (plain.epochs, plain.optimizer) == (3, "sgd")
    assert plain.batch_rows(680) == source.recipe.training.batch_rows(680) == 42


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{"name": "a"}, {"name": "a"}], "baselines has two networks of name 'a'"),
        ([{"name": "backbone"}], "baselines has two networks of name 'backbone'"),
        ([{"name": "a", "options": {"widht": 1}}], "Baseline 'a': model.options do not fit small"),
        ([{"name": "a", "model": "lenet"}], "Baseline 'a': model.factory is 'lenet'"),
        (
            [{"name": "a", "model": "plain", "options": {"classes": 4}}],
            r"Baseline 'a': The data's classes are 10 names \(0, .*9\)\. The network returns 4 logits",
        ),
        (
            [{"name": "a", "model": "b-lenet"}],
            r"Baseline 'a': The data set's 'image' is .*The network takes uint8 \[1, 28",
        ),
        ([{"name": "a/b"}], r"baselines.0.name is 'a/b'"),
        ([{"name": "a", "epoch": 3}], r"baselines.0.epoch is not a known key"),
    ],
)
def test_mistakes_show_before_anything_is_trained(
    tmp_path: Path, data: Path, entries: list[dict[str, Any]], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.build.train", lambda *_, **__: pytest.fail("must not start"))
    recipe = recipe_with(tmp_path / "recipe.yaml", baselines=entries)
    with pytest.raises(ConfigError, match=said):
        build(recipe, tmp_path / "out", data, baselines=True, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
