import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from calibration.datasets import load_train
from calibration.settings import DataSettings
from common.errors import ConfigError
from tests.synthetic import recipe
from tests.training.nets import small
from training.add_exits import add_exits
from training.backbone import _knows as knows
from training.build import build, train_weights
from training.cost import costs
from training.given_weights import start_from
from training.lenet import b_lenet
from training.models import make_network
from training.narrow_resnet import narrow_resnet
from training.recipe import load_recipe
from training.resnet import ResNet

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.classify = nn.Linear(4, 10)

    def forward(self, image):
        return self.classify(self.second(self.first(image)).mean((2, 3)))

def build():
    return Net()
"""


def _recipe(folder: Path, model: dict[str, Any], **training: Any) -> Path:
    (folder / "net.py").write_text(NET)
    document = recipe() | {
        "model": {"factory": "./net.py:build", **model},
        "exits": {"at": ["first"]},
        "training": {"epochs": 1, "batch_size": 64} | training,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_what_was_trained_with_exits_starts_a_training_without(tmp_path: Path, data: Path) -> None:
    train_weights(_recipe(tmp_path, {}), tmp_path / "first.npz", data, threads=1, quiet=True)
    path = _recipe(tmp_path, {"weights": "first.npz"}, recipe="exits-only")
    source = load_recipe(path)
    network = make_network(source, load_train(source.recipe.data, data))
    given = np.load(tmp_path / "first.npz")
    for name, value in network.state_dict().items():
        if ".tensors." in name:
            assert np.array_equal(value.numpy(), given[name]), name
    assert not np.array_equal(network.state_dict()["heads.0.product.weight"].numpy(), given["heads.0.product.weight"])
    train_weights(path, tmp_path / "second.npz", data, threads=1, quiet=True)
    second = np.load(tmp_path / "second.npz")
    backbone = [name for name in second.files if ".tensors." in name]
    assert len(backbone) > 10 and all(np.array_equal(second[name], given[name]) for name in backbone)


def test_exits_are_not_put_on_a_users_network_that_is_still_random(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        build(_recipe(tmp_path, {}, recipe="exits-only"), tmp_path / "out", data, threads=1)
    assert "./net.py:build hardly does better than guessing on the validation rows" in str(caught.value)
    assert "Give it trained weights with model.weights, or train it for training.backbone_epochs." in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"net.py", "recipe.yaml", "__pycache__"}
    assert re.search(r"its last exit is right for \d+\.\d % of the validation rows", capsys.readouterr().err)


def test_a_backbone_knows_something_where_it_is_right_more_often_than_by_guessing() -> None:
    labels = np.arange(1000) % 10
    guesses = np.random.default_rng(0).integers(0, 10, 1000)
    assert not knows(guesses, labels) and not knows(np.full(1000, 3), labels)
    assert knows(np.where(np.arange(1000) < 300, labels, guesses), labels)
    rare = (np.arange(1000) < 20).astype(np.int64)  # always the frequent class: right for 98 %, and knows nothing
    assert not knows(np.zeros(1000, np.int64), rare) and knows(rare, rare)


def test_weights_by_the_networks_own_names(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one, other = ResNet(blocks=1, widths=(4, 4, 4)), ResNet(blocks=1, widths=(4, 4, 4))
    np.savez(tmp_path / "w.npz", allow_pickle=False, **{k: v.numpy() for k, v in one.state_dict().items()})
    start_from(other, tmp_path / "w.npz")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = {name: value.numpy() for name, value in before.items()}
    np.savez(tmp_path / "few.npz", **dict(list(weights.items())[1:]))
    np.savez(tmp_path / "shape.npz", **weights | {"heads.1.1.bias": np.zeros(3, np.float32)})
    np.savez(tmp_path / "pickle.npz", x=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("x")
    for name, said in (
        ("few", r"few\.npz has no weights 'bodies\.0\.1\.0\.weight'"),
        ("shape", r"'heads\.1\.1\.bias' as \[3\]\. The network's is \[10\]"),
        ("pickle", r"pickle\.npz is no numpy archive of weights \(\.npz\)\.$"),
        ("text", r"text\.npz is no numpy archive of weights"),
        ("absent", r"absent\.npz is no numpy archive of weights \(\.npz\): .*No such file"),
    ):
        with pytest.raises(ConfigError, match=said):
            start_from(network, tmp_path / f"{name}.npz")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        (
            {"factory": "small"},
            {"training": {"recipe": "exits-only"}},
            "small starts with random weights. Give it model",
        ),
        (
            {"factory": "./net.py:build"},
            {"exits": {"head": {"cascade": True}, "keep": "greedy"}},
            "exits.keep is 'greedy'. A cascaded head reads the exit before it",
        ),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, data: Path, model: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    (tmp_path / "net.py").write_text(NET)
    document: dict[str, Any] = recipe() | {"model": model, "training": {"epochs": 1}}
    for section, change in changes.items():
        document[section] = document.get(section, {}) | change
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError) as caught:
        source = load_recipe(tmp_path / "r.yaml")
        make_network(source, load_train(DataSettings(**recipe()["data"]), data))
    assert said in str(caught.value)


def test_widths() -> None:
    for make in (b_lenet, narrow_resnet):
        whole, half = make(), make(width=0.5)
        assert costs(half).whole < 0.4 * costs(whole).whole
        assert [half.crossing(cut) for cut in range(2)] == [whole.crossing(cut) for cut in range(2)]
    assert sum(p.numel() for p in ResNet(width=2.0).parameters()) > 3.5 * sum(p.numel() for p in ResNet().parameters())
    assert ResNet(width=0.01).classify.in_features == 1
    with pytest.raises(ValueError, match=r"width is 0\.0, and must be above 0"):
        ResNet(width=0.0)


class Tied(nn.Module):
    """Two products that share a weight, and a batch norm whose count of batches can only be kept by the network."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm = nn.BatchNorm1d(6, momentum=None)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.norm(self.b(torch.relu(self.a(x))))))


@pytest.mark.filterwarnings("ignore:While training")
def test_tied_weights_and_counts_of_batches_need_not_be_in_what_was_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = add_exits(Tied(), torch.randn(2, 6), ["a"])
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    assert not {"bodies.0.tensors.a.weight", "bodies.1.tensors.norm.num_batches_tracked"} <= set(arrays)
    np.savez(tmp_path / "trained.npz", allow_pickle=False, **arrays)
    other = Tied().eval()
    start_from(other, tmp_path / "trained.npz")
    x = torch.randn(4, 6)
    assert torch.allclose(other(x), network(x)[-1], atol=1e-6)
