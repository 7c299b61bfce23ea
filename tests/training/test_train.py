from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calibration.datasets import Splits, divide, load_train
from calibration.settings import DataSettings
from common.errors import ConfigError
from tests.synthetic import recipe
from tests.training.nets import small
from training.augment import Distortion
from training.losses import joint_loss, rate
from training.network import MultiExitNetwork
from training.progress import Silent, progress
from training.recipe import TrainingSettings
from training.train import History, train, validate


@pytest.fixture(scope="module")
def splits(data: Path) -> Splits:
    settings = DataSettings(**recipe()["data"])
    return divide(load_train(settings, data), settings)


def _settings(**changes: Any) -> TrainingSettings:
    base: dict[str, Any] = {"epochs": 3, "batch_size": 50, "exit_weights": [1.0, 0.5], "learning_rate": 0.02}
    return TrainingSettings(**{**base, **changes})


def _train(splits: Splits, **changes: Any) -> tuple[MultiExitNetwork, History]:
    settings = _settings(**changes)
    torch.manual_seed(settings.seed)
    network = small()
    history = train(network, splits.train, splits.validation, settings, threads=1, report=Silent())
    return network, history


def test_learns(splits: Splits) -> None:
    network, history = _train(splits)
    assert history.epochs[-1].loss < history.epochs[0].loss
    assert min(history.best.accuracy) > 0.5  # of ten classes
    assert not network.training


def test_a_seed_fixes_everything(splits: Splits) -> None:
    augment = {"degrees": 5.0, "shift": 0.1}
    weights = [_train(splits, epochs=1, seed=seed, augment=augment)[0].state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert not all(torch.equal(value, weights[2][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
def test_weights_stay_float32_and_in_order(splits: Splits, precision: str) -> None:
    network, _ = _train(splits, epochs=1, precision=precision)
    values = network.state_dict().values()
    assert {value.dtype for value in values if value.is_floating_point()} == {torch.float32}
    assert all(value.is_contiguous() for value in values)


def test_keeps_the_best_epoch_by_validation(splits: Splits) -> None:
    settings = _settings(epochs=4)
    network, history = _train(splits, epochs=4)
    assert history.best == min(history.epochs, key=lambda epoch: epoch.loss)
    again = validate(network, splits.validation, settings, history.best.number)
    assert again.loss == pytest.approx(history.best.loss, rel=1e-4)


def test_stops_when_nothing_gets_better(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    import training.train as module

    losses = iter([3.0, 2.0, 2.5, 2.4, 1.0])
    measure = module.validate

    def worse(*args: Any) -> Any:
        return type(measure(*args))(number=args[3], loss=next(losses), accuracy=(0.0, 0.0))

    monkeypatch.setattr(module, "validate", worse)
    _, history = _train(splits, epochs=5, patience=2)
    assert [epoch.number for epoch in history.epochs] == [1, 2, 3, 4] and history.best.number == 2


@pytest.mark.parametrize(
    "changes", [{"distillation": 0.5}, {"rate_penalty": 0.1}, {"precision": "bfloat16"}, {"exit_weights": [0.0, 1.0]}]
)
def test_options_train_too(splits: Splits, changes: dict[str, Any]) -> None:
    _, history = _train(splits, epochs=1, **changes)
    assert np.isfinite(history.best.loss)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exit_weights": [1.0]}, r"exit_weights has 1 numbers\. The network has 2 exits"),
        ({"batch_size": 5000}, r"batch_size is 5000, but only 400 rows"),
        ({"learning_rate": 1e30}, r"loss became .* in epoch 1: lower training\.learning_rate"),
    ],
)
def test_settings_that_do_not_fit(splits: Splits, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _train(splits, **changes)


def test_data_that_do_not_fit(splits: Splits) -> None:
    rows = splits.train
    for inputs, said in (
        ({"picture": rows.inputs["image"]}, "The network reads 'image'. The data set has picture"),
        ({"image": rows.inputs["image"].astype(np.float32)}, "is float32 .* takes uint8"),
        ({"image": rows.inputs["image"][:, :, :7]}, "takes uint8"),
    ):
        other = type(rows)(inputs=inputs, labels_N=rows.labels_N, sha256={})
        with pytest.raises(ConfigError, match=said):
            train(small(), other, splits.validation, _settings(), threads=1, report=Silent())
    labels = type(rows)(inputs=rows.inputs, labels_N=rows.labels_N + 1, sha256={})
    with pytest.raises(ConfigError, match="has label 10"):
        train(small(), labels, splits.validation, _settings(), threads=1, report=Silent())


def test_weights_of_exits_weigh() -> None:
    labels = torch.tensor([0, 1])
    good, bad = torch.eye(2) * 9, -torch.eye(2) * 9
    first, last = (joint_loss([bad, good], labels, [], _settings(exit_weights=w)) for w in ([1.0, 0.0], [0.0, 1.0]))
    assert first > 5 > 0.1 > last
    assert joint_loss([bad, good], labels, [], _settings(exit_weights=[0.5, 0.0])) == pytest.approx(float(first) / 2)


def test_the_teacher_learns_nothing_from_its_pupils() -> None:
    logits = [torch.randn(4, 3, requires_grad=True) for _ in range(2)]
    joint_loss(
        logits, torch.zeros(4, dtype=torch.int64), [], _settings(distillation=1.0, exit_weights=[0.0, 0.0])
    ).backward()
    assert logits[0].grad is not None and logits[0].grad.abs().sum() > 0
    assert logits[1].grad is None or logits[1].grad.abs().sum() == 0


def test_rate_grows_with_magnitude() -> None:
    assert rate(torch.zeros(5)) == 0.0
    assert rate(torch.full((5,), 0.5)) == pytest.approx(1.0)
    assert rate(torch.full((5,), -1.5)) == pytest.approx(2.0)


def test_distortions_are_small_random_and_repeatable() -> None:
    images = torch.zeros(3, 1, 9, 9, dtype=torch.uint8)
    images[:, :, 3:6, 3:6] = 200
    still = Distortion()(images, torch.Generator().manual_seed(0))
    assert torch.equal(still, images)
    distort = Distortion(degrees=20, shift=0.1, scale=0.2, shear=0.2, elastic=0.1)
    moved = [distort(images, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*moved) and moved[0].dtype == torch.uint8
    assert not torch.equal(moved[0], images)
    assert not torch.equal(moved[0][0], moved[0][1])  # every image by its own amounts
    assert distort(images.float(), torch.Generator()).dtype == torch.float32
    far = Distortion(shift=0.5)(images, torch.Generator().manual_seed(3))
    assert far.float().mean() <= images.float().mean() + 1


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], splits: Splits) -> None:
    with progress("train", 10) as report:
        report.advance()
        report.line("epoch 1/2: 99.1 %, about 5 s left")
    captured = capsys.readouterr()
    assert captured.err == "epoch 1/2: 99.1 %, about 5 s left\n" and captured.out == ""
    with progress("train", 10, quiet=True) as report:
        report.line("nothing")
    assert capsys.readouterr().err == ""
