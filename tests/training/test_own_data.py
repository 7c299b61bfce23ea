"""Every format of rows, from a recipe of a few lines to a bundle that is evaluated and calibrated again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from calibration.calibrate import calibrate
from calibration.evaluate import evaluate
from calibration.later import add_later
from calibration.settings import GuaranteeSettings
from common.bundle import Bundle
from common.errors import ConfigError
from tests.synthetic import write_data
from training.build import build

MODELS = """
import torch
from torch import nn


class Images(nn.Module):
    def __init__(self, channels=1, classes=10):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(channels, 4, 3, stride=2, padding=1), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.classify = nn.Linear(4, classes)

    def forward(self, pixels):
        return self.classify(self.b(self.a(pixels)).mean((2, 3)))


class Numbers(nn.Module):
    def __init__(self, features=4, classes=3):
        super().__init__()
        self.a = nn.Sequential(nn.Linear(features, 16), nn.ReLU())
        self.b = nn.Sequential(nn.Linear(16, 16), nn.ReLU())
        self.classify = nn.Linear(16, classes)

    def forward(self, x):
        return self.classify(self.b(self.a(x)))


class Windows(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Conv1d(2, 8, 3, padding=1), nn.ReLU())
        self.b = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), nn.ReLU())
        self.classify = nn.Linear(8, 3)

    def forward(self, x):
        return self.classify(self.b(self.a(x)).mean(2))


class Texts(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.a = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.b = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.classify = nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask):
        real = attention_mask.unsqueeze(2).to(torch.float32)
        x = self.b(self.a(self.embed(input_ids)))
        return self.classify((x * real).sum(1) / real.sum(1).clamp(min=1))
"""

LOAD = """
import numpy as np


def load(rows=400):
    random = np.random.default_rng(0)
    lengths = random.integers(3, 20, rows)
    labels = random.integers(0, 2, rows)
    mask = np.arange(20) < lengths[:, None]
    ids = np.where(mask, random.integers(1, 25, (rows, 20)) + 25 * labels[:, None], 0)
    first = {"input_ids": ids[:300], "attention_mask": mask[:300].astype(np.int64)}
    second = {"input_ids": ids[300:], "attention_mask": mask[300:].astype(np.int64)}
    return {"train": (first, labels[:300]), "test": (second, labels[300:]), "classes": ["dull", "fine"]}
"""


def numbers(rows: int, shape: tuple[int, ...], classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Rows around one centre per class."""
    labels = np.arange(rows) % classes
    noise = np.random.default_rng(rows).normal(size=(rows, *shape))
    centres = np.random.default_rng(1).normal(size=(classes, *shape))
    return (centres[labels] + 0.3 * noise).astype(np.float32), labels


def fashion(folder: Path) -> dict[str, Any]:
    write_data(folder / "fashion-mnist", train=500, test=100)
    return {"model": {"factory": "./nets.py:Images"}, "data": {"dataset": "fashion-mnist"}}


def cifar(folder: Path) -> dict[str, Any]:
    random = np.random.default_rng(6)
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        rows = random.integers(0, 256, (80, 3073)).astype(np.uint8)
        rows[:, 0] = np.arange(80) % 10
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    model = {"factory": "./nets.py:Images", "options": {"channels": 3}, "mean": [0.5], "std": [0.25]}
    return {"model": model, "data": {"dataset": "cifar-10"}}


def folder_of_images(folder: Path) -> dict[str, Any]:
    random = np.random.default_rng(7)
    for label, name in enumerate(("ant", "bee")):
        (folder / "photos" / name).mkdir(parents=True)
        for k in range(150):
            pixels = np.clip(random.normal(60 + 120 * label, 30, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{k}.png")
    model = {"factory": "./nets.py:Images", "options": {"channels": 3, "classes": 2}}
    return {"model": model, "data": {"dataset": "./photos"}}


def npz(folder: Path) -> dict[str, Any]:
    x, y = numbers(400, (2, 16))
    np.savez(folder / "windows.npz", signal=x, label=y, person=np.arange(400) // 10)
    return {"model": "./nets.py:Windows", "data": {"dataset": "./windows.npz", "group": "person"}}


def any_length(folder: Path) -> dict[str, Any]:
    return npz(folder) | {"exits": {"at": 2, "shapes": {"signal": [2, "time"]}, "buckets": {"time": [8, 16]}}}


def csv(folder: Path) -> dict[str, Any]:
    for name, count in (("rows", 400), ("more", 80)):
        x, y = numbers(count, (4,))
        lines = [
            ",".join([*(f"{v:.6f}" for v in row), "red green blue".split()[label]])
            for row, label in zip(x, y, strict=True)
        ]
        (folder / f"{name}.csv").write_text("\n".join(["a,b,c,d,colour", *lines]))
    return {"model": "./nets.py:Numbers", "data": {"dataset": "./rows.csv", "test": "./more.csv", "label": "colour"}}


def txt(folder: Path) -> dict[str, Any]:
    random = np.random.default_rng(8)
    lines = []
    for k in range(400):
        ids = random.integers(1 + 25 * (k % 2), 25 + 25 * (k % 2), random.integers(2, 12))
        lines.append(" ".join(["bad good".split()[k % 2], *map(str, ids)]))
    (folder / "texts.txt").write_text("\n".join(lines))
    return {"model": "./nets.py:Texts", "data": {"dataset": "./texts.txt"}}


def function(folder: Path) -> dict[str, Any]:
    (folder / "rows.py").write_text(LOAD)
    return {"model": "./nets.py:Texts", "data": {"dataset": "./rows.py:load", "options": {"rows": 420}}}


def write_recipe(folder: Path, sections: dict[str, Any]) -> Path:
    (folder / "nets.py").write_text(MODELS)
    training = {"epochs": 8, "learning_rate": 0.02}
    (folder / "recipe.yaml").write_text(
        yaml.safe_dump({"name": "own", "exits": {"at": 2}, "training": training} | sections)
    )
    return folder / "recipe.yaml"


@pytest.mark.parametrize(
    ("write", "named", "inputs", "classes", "least"),
    [
        (fashion, True, {"image": (1, 8, 8)}, "Ankle boot", 0.0),
        (cifar, True, {"image": (3, 32, 32)}, "truck", 0.0),
        (folder_of_images, False, {"image": (3, 8, 8)}, "bee", 0.9),
        (npz, False, {"signal": (2, 16)}, "2", 0.8),
        (any_length, False, {"signal": (2, "time")}, "2", 0.8),
        (csv, False, {"x": (4,)}, "red", 0.9),
        (txt, False, {"input_ids": ("tokens",), "attention_mask": ("tokens",)}, "good", 0.9),
        (function, False, {"input_ids": ("tokens",), "attention_mask": ("tokens",)}, "fine", 0.9),
    ],
)
def test_from_rows_to_a_bundle(
    tmp_path: Path, write: Any, named: bool, inputs: dict[str, Any], classes: str, least: float
) -> None:
    recipe = write_recipe(tmp_path, write(tmp_path))
    out = tmp_path / "out"
    result = build(recipe, out, tmp_path if named else None, threads=1, quiet=True)
    assert result["operating_points"]["full"]["accuracy"] >= least
    bundle = Bundle(out)
    bundle.verify()
    manifest = bundle.manifest
    assert {name: manifest.tensors[name].shape for name in manifest.inputs} == inputs
    assert manifest.classes[-1] == classes
    for path in out.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()

    again = evaluate(out, tmp_path, latency_rows=0)
    assert again["operating_points"] == result["operating_points"] and again["data_sha256"] == result["data_sha256"]
    assert calibrate(out, tmp_path) == bundle.digest


def test_a_promise_about_rows_that_belong_together_says_so(tmp_path: Path) -> None:
    sections = npz(tmp_path) | {"calibration": {"guarantee": {"epsilon": 0.3}}}
    build(write_recipe(tmp_path, sections), tmp_path / "out", threads=1, quiet=True)
    paper = Bundle(tmp_path / "out").manifest.operating_points["guaranteed"].guarantee
    assert paper is not None and paper["group"] == "person"
    assert paper["statement"].endswith("the fewer values of person there are, the more often it is wrong.")
    add_later(tmp_path / "out", "guaranteed", GuaranteeSettings(epsilon=0.9, name="loose"))
    paper = Bundle(tmp_path / "out").manifest.operating_points["loose"].guarantee
    assert paper is not None and "rows of equal person are not" in paper["statement"]


def test_rows_that_changed_are_noticed(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, function(tmp_path))
    build(recipe, tmp_path / "out", threads=1, quiet=True)
    digest = Bundle(tmp_path / "out").digest
    (tmp_path / "rows.py").write_text(LOAD.replace("default_rng(0)", "default_rng(1)"))
    with pytest.raises(ConfigError, match="train files differ from those that the bundle was trained on"):
        calibrate(tmp_path / "out", tmp_path)
    assert Bundle(tmp_path / "out").digest == digest


def test_test_rows_are_not_set_aside_from_another_file(tmp_path: Path) -> None:
    """Another file is divided otherwise: rows that the network was trained on would be among the test rows."""
    recipe = write_recipe(tmp_path, npz(tmp_path) | {"training": {"epochs": 1}})
    build(recipe, tmp_path / "out", threads=1, quiet=True)
    arrays = dict(np.load(tmp_path / "windows.npz"))
    np.savez(tmp_path / "windows.npz", allow_pickle=False, **{name: array[:-10] for name, array in arrays.items()})
    with pytest.raises(ConfigError, match=r"train files differ .* so its test rows are unknown"):
        evaluate(tmp_path / "out", tmp_path, latency_rows=0)


@pytest.mark.parametrize("write", [npz, csv, txt])
def test_wrong_rows_leave_nothing_behind(tmp_path: Path, write: Any) -> None:
    sections = write(tmp_path)
    path = tmp_path / sections["data"]["dataset"]
    path.write_bytes(path.read_bytes()[:-7] + b"\n1,2,3")
    recipe = write_recipe(tmp_path, sections)
    before = sorted(one.name for one in tmp_path.iterdir())
    with pytest.raises(ConfigError, match=path.name) as caught:
        build(recipe, tmp_path / "out", quiet=True)
    assert "\n" not in str(caught.value)
    assert sorted(one.name for one in tmp_path.iterdir()) == before


def test_a_label_beyond_the_network_is_named_with_its_row(tmp_path: Path) -> None:
    """As the file has it, and before anything is trained."""
    sections = csv(tmp_path) | {"model": {"factory": "./nets.py:Numbers", "options": {"classes": 2}}}
    lines = (tmp_path / "rows.csv").read_text().replace("red", "2").replace("green", "1").replace("blue", "0")
    more = (tmp_path / "more.csv").read_text().replace("red", "2").replace("green", "1").replace("blue", "0")
    (tmp_path / "rows.csv").write_text(lines)
    (tmp_path / "more.csv").write_text(more)
    row = [line.endswith(",2") for line in lines.splitlines()[1:]].index(True)
    with pytest.raises(
        ConfigError, match=rf"rows\.csv: row {row} has label 2\. The network has 2 classes, labels 0 to 1"
    ):
        build(write_recipe(tmp_path, sections), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", ["texts", "more"])
def test_token_ids_beyond_the_vocabulary_are_named_with_their_row(tmp_path: Path, side: str) -> None:
    """Among the test rows, too, which nothing else looks at before the evaluation."""
    sections = txt(tmp_path)
    lines = (tmp_path / "texts.txt").read_text().splitlines()
    parts = {"texts": lines[:-40], "more": lines[-40:]}
    parts[side][17] += " 999"
    for name, part in parts.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(part))
    sections["data"]["test"] = "./more.txt"
    row = "test row 17" if side == "more" else "row 17"
    with pytest.raises(ConfigError, match=rf"the network does not take {row}, where input_ids holds 999: index out"):
        build(write_recipe(tmp_path, sections), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_few_rows_get_small_batches_unless_the_recipe_says_a_size() -> None:
    """With the usual 256 rows a small data set would be seen in one or two steps per epoch, or not at all."""
    from training.recipe import Recipe

    def rows(count: int, **training: Any) -> int:
        sections = {"name": "x", "model": "resnet", "data": {"dataset": "mnist"}, "training": {"epochs": 1} | training}
        recipe = Recipe.model_validate(sections)
        kept = Recipe.model_validate(recipe.model_dump(mode="json"))  # what a bundle says of its recipe trains alike
        assert kept.training.batch_rows(count) == recipe.training.batch_rows(count)
        return recipe.training.batch_rows(count)

    assert [rows(count) for count in (20, 800, 45_000)] == [8, 50, 256]
    assert rows(800, batch_size=256) == 256


def test_outputs_that_no_row_asks_for_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A head of 7 outputs on rows of 3 classes is built, and said to be so."""
    x, y = numbers(400, (4,))
    np.savez(tmp_path / "rows.npz", x=x, label=y)
    model = {"factory": "./nets.py:Numbers", "options": {"classes": 7}}
    sections = {"model": model, "data": {"dataset": "./rows.npz"}, "training": {"epochs": 1}}
    build(write_recipe(tmp_path, sections), tmp_path / "out")
    assert "answers one of 7 classes, and the rows have labels 0 to 2" in capsys.readouterr().err
