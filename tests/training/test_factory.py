"""Networks that a user names: a function in a file, a saved program, from the recipe to the bundle."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from common.bundle import Bundle
from common.errors import ConfigError
from tests.synthetic import SIDE, recipe
from tests.training import zoo
from training.add_exits import add_exits
from training.build import build, train_weights
from training.cut_list import list_cuts
from training.factory import load_model
from training.proof import chain
from training.recipe import load_recipe
from training.saved import load_program

MODEL = """
import torch
from torch import nn
from beside import WIDTH


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.b = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.fc = nn.Linear(width * 64, 10)

    def forward(self, x):
        x = self.b(self.a(x))
        return self.fc(x.view(len(x), -1))


def build(width=WIDTH):
    return Net(width)


def example():
    return torch.zeros(2, 1, 8, 8)


def number():
    return 3


def broken():
    raise KeyError("weights")


def rounded():
    return torch.compile(Net(WIDTH).to(torch.bfloat16))


def scripted():
    return torch.jit.script(nn.Linear(3, 3))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    return tmp_path


def test_a_function_in_a_file(folder: Path) -> None:
    loaded = load_model("./my_model.py:build", folder, {"width": 6})
    assert isinstance(loaded.model, torch.nn.Module) and loaded.model.fc.in_features == 6 * 64
    assert loaded.example.shape == (2, 1, 8, 8) and loaded.file == "my_model.py" and len(loaded.sha256) == 64
    assert "beside" not in Path.cwd().name and str(folder) not in __import__("sys").path


@pytest.mark.parametrize(
    ("reference", "options", "said"),
    [
        ("./absent.py:build", {}, r"absent\.py cannot be read: there is no such file"),
        ("./my_model.py:bild", {}, r"has no function 'bild'\. Did you mean 'build'\?"),
        ("./my_model.py:build", {"depth": 3}, r"my_model\.py:build fails: TypeError: .*depth"),
        ("./my_model.py:number", {}, r"returns a int\. It must return a torch\.nn\.Module"),
        ("./my_model.py:scripted", {}, r"returns a TorchScript module\. It must return the torch\.nn\.Module itself"),
        ("./my_model.py:broken", {}, r"fails: KeyError: 'weights'"),
        ("./bad.py:build", {}, r"bad\.py cannot be imported: SyntaxError"),
        ("my_model.py", {}, "names no network. It must be FILE.py:FUNCTION or FILE.pt2"),
        ("./absent.pt2", {}, r"absent\.pt2 cannot be read"),
        ("./text.pt2", {}, r"text\.pt2 is not a program saved by torch\.export\.save"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_names_no_network(folder: Path, reference: str, options: dict[str, Any], said: str) -> None:
    (folder / "bad.py").write_text("def build(:")
    (folder / "text.pt2").write_text("text")
    with pytest.raises(ConfigError, match=said) as caught:
        load_model(reference, folder, options)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_weights_of_other_types_are_float32_from_then_on(folder: Path) -> None:
    with pytest.warns(UserWarning, match="The network's bfloat16 weights are trained and served as float32"):
        model = load_model("./my_model.py:rounded", folder).model
    assert isinstance(model, torch.nn.Module) and "fc.weight" in dict(model.named_parameters())
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}


def saved(path: Path, model: torch.nn.Module, *shape: int, rows: Any = "n") -> Path:
    dynamic = ({0: torch.export.Dim(rows)},) if rows else None
    torch.export.save(torch.export.export(model, (torch.randn(3, *shape),), dynamic_shapes=dynamic), path)
    return path


@pytest.mark.parametrize("training", [False, True])
def test_a_saved_program_serves_and_trains_in_whatever_mode_it_was_saved(tmp_path: Path, training: bool) -> None:
    torch.manual_seed(0)
    model = zoo.SensorNet()
    program = load_program(saved(tmp_path / "net.pt2", model.train(training), 6, 64))
    network = add_exits(program, None, ["blocks.0"])
    x = torch.randn(5, 6, 64)
    with torch.inference_mode():
        assert torch.allclose(chain(network, {network.inputs[0].name: x})[-1], model.eval()(x), atol=1e-5)
    statistics = {name: tensor.clone() for name, tensor in network.named_buffers() if "running" in name}
    network.train()(x)[-1].sum().backward()
    assert all(not torch.equal(tensor, dict(network.named_buffers())[name]) for name, tensor in statistics.items())
    assert all(p.grad is not None for p in network.bodies.parameters())


def test_a_saved_text_encoder_takes_any_length(tmp_path: Path) -> None:
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens", max=64)
    inputs = {"input_ids": torch.ones(3, 16, dtype=torch.int64), "attention_mask": torch.ones(3, 16).long()}
    dynamic = {name: {0: rows, 1: tokens} for name in inputs}
    program = torch.export.export(zoo.TextEncoder(depth=1).eval(), (), inputs, dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "text.pt2")
    network = add_exits(load_program(tmp_path / "text.pt2"), None, ["layers.0.output"])
    assert [spec.shape for spec in network.inputs] == [("tokens",), ("tokens",)]
    assert network.buckets == {"tokens": (8, 16, 32, 64)}  # the program says how long a row may be


def test_a_program_for_one_number_of_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"takes exactly 3 rows of .*dynamic_shapes"):
        add_exits(load_program(saved(tmp_path / "net.pt2", zoo.SensorNet(), 6, 64, rows=None)), None, 2)


def _changed(path: Path, member: str, change: Any) -> Path:
    """The archive with one member changed."""
    raw = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as target:
        for item in source.infolist():
            content = source.read(item)
            target.writestr(item.filename, change(content) if item.filename.endswith(member) else content)
    path.write_bytes(raw.getvalue())
    return path


def _formula(raw: bytes) -> bytes:
    return raw.replace(b"Symbol('s", b"__import__('os').system('s", 1)


def _operator(raw: bytes) -> bytes:
    return raw.replace(b"torch.ops.aten.relu_.default", b"torch.hub.load", 1)


def _pickled(raw: bytes) -> bytes:
    config = json.loads(raw)
    next(iter(config["config"].values()))["use_pickle"] = True
    return json.dumps(config).encode()


@pytest.mark.parametrize(
    ("member", "change", "said"),
    [
        ("models/model.json", _formula, r'holds the formula "__import__'),
        ("models/model.json", _operator, "calls 'torch.hub.load'. A program may call PyTorch's own operators only"),
        ("weights_config.json", _pickled, "as a pickle. Only plain tensors are read"),
        ("models/model.json", lambda raw: raw[:100], "is not a program saved by torch.export.save"),
    ],
)
def test_a_program_that_could_run_code_is_refused(tmp_path: Path, member: str, change: Any, said: str) -> None:
    path = _changed(saved(tmp_path / "net.pt2", zoo.SensorNet(), 6, 64), member, change)
    with pytest.raises(ConfigError, match=said):
        load_program(path)


def test_cuts_of_whatever_a_user_names(folder: Path) -> None:
    found = list_cuts("./my_model.py:build", folder, [], max_tensors=4)
    assert [cut.name for cut in found.cuts] == ["a", "b"] and found.parameters == 2 * 4 + 2 * 4 + 40 + 148 + 2570
    assert list_cuts("./my_model.py:build", folder, ["x=float32[1,8,8]"], max_tensors=4) == found
    saved(folder / "net.pt2", zoo.SensorNet(), 6, 64)
    assert [cut.name for cut in list_cuts("net.pt2", folder, [], max_tensors=4).cuts] == [
        "blocks.0",
        "blocks.1",
        "blocks",
    ]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(_recipe({"factory": "b-lenet"})))
    own = list_cuts("recipe.yaml", folder, [], max_tensors=4)
    assert [(cut.name, cut.tensors[0].shape) for cut in own.cuts] == [
        ("behind stage 0", (6, 6, 6)), ("behind stage 1", (8, 6, 6))
    ]  # fmt: skip
    for reference, example, said in (
        ("nonsense", [], "names no network"),
        ("./my_model.py:build", ["3y4"], r"The example '3y4' cannot be read\. It must be 3x224x224"),
        ("./my_model.py:build", ["x=float99[1]"], "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=said):
            list_cuts(reference, folder, example, max_tensors=4)


def _recipe(model: Any, **sections: Any) -> dict[str, Any]:
    training = {"epochs": 2, "batch_size": 64, "exit_weights": [1.0, 0.5], "learning_rate": 0.01}
    return recipe() | {"model": model, "training": training} | sections


def test_a_recipe_builds_a_bundle_of_a_users_network(folder: Path, data: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "recipe.yaml").write_text(
        yaml.safe_dump(_recipe("../my_model.py:build", exits={"at": ["a"], "head": "pool"}))
    )
    result = build(folder / "sub" / "recipe.yaml", folder / "out", data, threads=1, quiet=True)
    bundle = Bundle(folder / "out")
    bundle.verify()
    manifest = bundle.manifest
    assert manifest.inputs == ("image",) and manifest.tensors["image"].dtype == "uint8"  # scaling is in stage 0
    assert manifest.image is not None and manifest.image.mode == "L" and manifest.image.size == (SIDE, SIDE)
    assert manifest.stages[0].writes == ("a", "logits0") and manifest.tensors["a"].shape == (4, SIDE, SIDE)
    assert manifest.provenance["model_file"]["name"] == "my_model.py"
    assert manifest.provenance["recipe"]["exits"]["at"] == ["a"]
    assert result["operating_points"]["full"]["accuracy"] > 0.5


def test_heads_of_their_own_and_a_gate_that_is_fitted_later(folder: Path, data: Path) -> None:
    sections = {"exits": {"at": "a", "head": ["conv"]}, "calibration": {"criterion": "gate", "target_drop": 0.05}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(_recipe("./my_model.py:build", **sections)))
    build(folder / "recipe.yaml", folder / "out", data, threads=1, quiet=True)
    manifest = Bundle(folder / "out").manifest
    assert manifest.provenance["recipe"]["exits"]["heads"][0]["kind"] == "conv"
    point = manifest.operating_points["default"]
    assert point.criterion == "gate" and point.gates[0] is not None and manifest.exits[0].gate is None


def test_a_recipe_names_a_backbone_of_offramps_own(tmp_path: Path, data: Path) -> None:
    from calibration.datasets import load_train
    from training.models import make_network

    options = {"widths": [4, 8, 8], "blocks": 1, "channels": 1}
    model = {"factory": "resnet", "options": options, "mean": [0.5], "std": [0.25], "classes": list("abcdefghij")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(_recipe(model, exits={"at": 2, "head": {"kind": "conv"}})))
    source = load_recipe(tmp_path / "recipe.yaml")
    network = make_network(source, load_train(source.recipe.data, data))
    assert network.classes == tuple("abcdefghij") and len(network.exits) == 2
    (pixels,) = network.example(2)
    assert pixels.dtype == torch.uint8 and network(pixels)[-1].shape == (2, 10)
    document = source.recipe.model_dump(mode="json")
    assert "image" not in document["model"]  # what a recipe does not say is not written down


@pytest.mark.parametrize(
    ("model", "sections", "said"),
    [
        ("./my_model.py:build", {"exits": {"at": ["z"]}}, "has no cut 'z'"),
        ("./my_model.py:build", {"exits": {"at": 99}}, r"^exits\.at is 99\. It must be a number of exits from 1 to"),
        ("./my_model.py:build", {"exits": {"mask": "m"}}, r"^exits\.mask is 'm'"),
        ("./my_model.py:build", {"exits": {"att": 3}}, r"exits\.att is not a known key\. Did you mean at\?"),
        ("./my_model.py:build", {"exits": {"at": 2, "head": "best"}}, r"exits\.head\.kind is 'best'"),
        ("./my_model.py:build", {"exits": {"at": ["a"], "head": ["pool", "best"]}}, r"exits\.heads\.1\.kind is 'best'"),
        (
            "./my_model.py:build",
            {"exits": {"at": ["a"], "head": ["pool", "conv"]}},
            r"exits\.head lists 2 heads\. It must be one for each of 1 cuts",
        ),
        (
            "./my_model.py:build",
            {"exits": {"at": {"a": 1}}},
            r"exits\.at is .*It must be the number of exits, or a list",
        ),
        ("./my_model.py:build", {"exits": {"head": 3}}, r"exits\.head is 3\. It must hold keys and values\."),
        ({"factory": "./my_model.py:build", "mean": [0.1, 0.2]}, {}, r"model\.mean has 2 numbers\. The data have 1"),
        ({"factory": "./my_model.py:build", "std": [0.0]}, {}, r"model\.std is \[0\.0\]"),
        (
            {"factory": "./my_model.py:build", "classes": ["a"]},
            {},
            r"model\.classes are 1 names \(a\)\. The network returns 10",
        ),
        ({"factory": "b-lenet", "mean": [0.1]}, {}, r"^model\.mean has no effect on b-lenet"),
        ("b-lenet", {"exits": {"at": 3}}, r"exits has no effect on b-lenet"),
    ],
)
def test_recipes_that_do_not_fit(folder: Path, data: Path, model: Any, sections: dict[str, Any], said: str) -> None:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(_recipe(model, **sections)))
    with pytest.raises(ConfigError, match=said) as caught:
        build(path, folder / "out", data, threads=1, quiet=True)
    assert "\n" not in str(caught.value) and not (folder / "out").exists()


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ({"budget": 0.01}, "'p': a budget of 0.01 of the network's FLOPs cannot be met: the first exit takes 0"),
        ({"thresholds": [0.5, 0.5]}, "'p' gives 2 thresholds. It needs 1, one per exit but the last"),
        ({"criterion": "patience", "thresholds": [0.5]}, "'p': A patience threshold is 0.5. It must be a whole number"),
    ],
)
def test_points_that_cannot_be_had_are_refused_before_the_training(
    folder: Path, data: Path, point: dict[str, Any], said: str
) -> None:
    sections = {"exits": {"at": ["a"]}, "calibration": {"points": [{"name": "p", **point}]}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(_recipe("./my_model.py:build", **sections)))
    for step in (build, train_weights):
        with pytest.raises(ConfigError) as caught:
            step(folder / "recipe.yaml", folder / "out.npz", data, threads=1, quiet=True)
        assert said in str(caught.value)
    assert not list(folder.glob("out*"))  # no state of a training either


def test_a_network_that_takes_bytes_gets_bytes(tmp_path: Path) -> None:
    from calibration.datasets import Examples
    from training.factory import Loaded
    from training.fit import fit_to_data
    from training.recipe import ExitSettings, ModelSettings

    class Bytes(zoo.LeNet5):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return super().forward(image.float() / 255)

    rows = np.zeros((4, 1, 28, 28), np.uint8)
    data = Examples(inputs={"image": rows}, labels_N=np.zeros(4, np.int64), sha256={})
    loaded = Loaded(model=Bytes(), example=None, file="", sha256="")
    network = fit_to_data(loaded, ModelSettings(factory="x"), ExitSettings(at=2), data)
    assert network.inputs[0].dtype == "uint8"
    with pytest.raises(ConfigError, match=r"model\.mean and model\.std have no effect"):
        settings = ModelSettings(factory="x", mean=[0.5])
        program = torch.export.export(Bytes().eval(), (torch.zeros(3, 1, 28, 28, dtype=torch.uint8),),
                                      dynamic_shapes=({0: torch.export.Dim("n")},))  # fmt: skip
        fit_to_data(Loaded(model=program, example=None, file="", sha256=""), settings, ExitSettings(at=2), data)
