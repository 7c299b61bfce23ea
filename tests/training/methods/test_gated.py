from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.datasets import Splits, divide, load_train
from calibration.served import Served
from calibration.settings import CutSettings, DataSettings
from common.bundle import Bundle
from common.errors import ConfigError
from tests.synthetic import recipe
from tests.training.nets import skipping, small, write_recipe
from training.build import build
from training.cost import costs
from training.export import export
from training.gates import add_gates
from training.methods.gated import GatedTraining, soft_exit
from training.phase import Answers, answer
from training.placement import place_greedily
from training.progress import Silent
from training.prune import keep_exits, measure
from training.train import train


@pytest.fixture(scope="module")
def splits(data: Path) -> Splits:
    settings = DataSettings(**recipe()["data"])
    return divide(load_train(settings, data), settings)


def test_the_soft_combination_is_the_recursion() -> None:
    torch.manual_seed(0)
    logits = {number: torch.randn(5, 4) for number in range(3)}
    gates = {number: torch.randn(5) for number in range(2)}
    mixed, share = soft_exit(Answers(logits=logits, gates=gates), (0.2, 0.5, 1.0))
    h0, h1 = gates[0].sigmoid()[:, None], gates[1].sigmoid()[:, None]
    y = [logits[number].softmax(1) for number in range(3)]
    assert torch.allclose(mixed.exp(), h0 * y[0] + (1 - h0) * (h1 * y[1] + (1 - h1) * y[2]), atol=1e-6)
    assert torch.allclose(share, (h0 * 0.2 + (1 - h0) * (h1 * 0.5 + (1 - h1) * 1.0))[:, 0])


def test_a_gate_that_is_shut_or_open_leaves_no_nan() -> None:
    logits = {0: torch.tensor([[200.0, -200.0]], requires_grad=True), 1: torch.zeros(1, 2)}
    for gate in (-500.0, 500.0):
        gates = {0: torch.tensor([gate], requires_grad=True)}
        mixed, share = soft_exit(Answers(logits=logits, gates=gates), (0.1, 1.0))
        (mixed[0, 0] + share.sum()).backward()
        assert gates[0].grad is not None and torch.isfinite(gates[0].grad).all()
        assert float(share.detach()) == pytest.approx(1.0 if gate < 0 else 0.1)


def test_exits_and_gates_learn_together(splits: Splits) -> None:
    torch.manual_seed(1)
    network = small()
    settings = GatedTraining(epochs=3, batch_size=50, learning_rate=0.02)
    history = train(network, splits.train, splits.validation, settings, threads=1, report=Silent())
    assert min(history.best.accuracy) > 0.5 and history.best.loss < history.epochs[0].loss
    assert list(network.gates) == ["0"]


@pytest.mark.parametrize("answers_early", [True, False])
def test_a_gate_opens_where_its_exit_is_right_or_computing_is_dear(answers_early: bool) -> None:
    sure, wrong = torch.tensor([[6.0, 0.0]]), torch.tensor([[0.0, 6.0]])
    logits = {0: sure if answers_early else wrong, 1: wrong if answers_early else sure}
    slopes = []
    for cost in (0.0, 20.0):
        gates = {0: torch.zeros(1, requires_grad=True)}
        loss = GatedTraining(epochs=1, cost=cost).phases(small())[0].loss
        loss(Answers(logits=logits, gates=gates), torch.tensor([0]), 0.0).backward()
        assert gates[0].grad is not None
        slopes.append(-float(gates[0].grad))
    assert (slopes[0] > 0) == answers_early and slopes[1] > max(slopes[0], 0)


def test_the_gate_is_exported_and_costs_little(tmp_path: Path) -> None:
    plain, gated = costs(skipping()), skipping()
    add_gates(gated)
    assert list(gated.gates) == ["0", "2"]
    before = dict(gated.gates)
    add_gates(gated)
    assert dict(gated.gates) == before
    assert plain.bodies == costs(gated).bodies
    assert all(0 <= b - a < 1000 for a, b in zip(plain.heads, costs(gated).heads, strict=True))
    export(gated, tmp_path, name="gated", cuts=CutSettings(), provenance={})
    bundle = Bundle(tmp_path)
    bundle.verify()
    assert [leave.gate for leave in bundle.manifest.exits] == ["gate0", "gate1", None]
    assert bundle.manifest.tensors["gate0"].shape == () and bundle.manifest.tensors["gate0"].dtype == "float32"
    assert bundle.manifest.stages[2].writes == ("c", "logits1", "gate1")


def test_a_network_pruned_keeps_the_gates_of_its_exits(splits: Splits) -> None:
    network = skipping()
    add_gates(network)
    rows = splits.validation
    image = torch.from_numpy(rows.inputs["image"])
    pruned = keep_exits(network, [1, 2])
    assert [part.gate is not None for part in pruned.parts] == [False, False, True, False]
    assert torch.equal(answer(pruned, (image,), (0, 1)).gates[0], answer(network, (image,), (0, 1, 2)).gates[1])
    measured = measure(network, rows.inputs, rows.labels_N, criterion="gate")
    assert np.isfinite(measured.scores.scores_EN[:2]).all() and np.isnan(measured.scores.scores_EN[2]).all()
    assert place_greedily(measured, target_drop=1.0).kept == (0, 2)


def test_a_bundle_whose_gates_decide(tmp_path: Path, data: Path) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", epochs=4, recipe="gated", cost=1.0, exit_weights="equal")
    path.write_text(path.read_text().replace("max-probability", "gate"))
    result = build(path, tmp_path / "out", data, threads=1, quiet=True)
    point = Bundle(tmp_path / "out").manifest.operating_points["default"]
    assert point.criterion == "gate" and np.isfinite(point.thresholds[0])
    rates = result["operating_points"]["default"]["exit_rates"]
    assert 0.1 < rates[0] <= 1.0 and sum(rates) == pytest.approx(1.0)
    assert Served(Bundle(tmp_path / "out")).manifest.exits[0].gate == "gate0"


def test_what_cannot_be_gated() -> None:
    from tests.training.methods.test_methods import _single

    with pytest.raises(ConfigError, match=r"training\.recipe is gated\. The network has no early exit"):
        GatedTraining(epochs=1).phases(_single())
