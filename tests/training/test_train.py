from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calibration.datasets import Examples, Splits, divide, load_train
from calibration.settings import DataSettings
from common.errors import ConfigError
from tests.synthetic import recipe
from tests.training.nets import small, vectors
from training.history import History
from training.losses import rate
from training.methods.joint import JointTraining
from training.network import MultiExitNetwork
from training.progress import Silent, progress
from training.train import train, validate


@pytest.fixture(scope="module")
def splits(data: Path) -> Splits:
    settings = DataSettings(**recipe()["data"])
    return divide(load_train(settings, data), settings)


def _settings(**changes: Any) -> JointTraining:
    base: dict[str, Any] = {"epochs": 3, "batch_size": 50, "exit_weights": [1.0, 0.5], "learning_rate": 0.02}
    return JointTraining(**{**base, **changes})


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
    network, history = _train(splits, epochs=4)
    assert history.best == min(history.epochs, key=lambda epoch: epoch.loss)
    (phase,) = _settings(epochs=4).phases(network)
    again = validate(network, splits.validation, phase, history.best.number, 0.0)
    assert again.loss == pytest.approx(history.best.loss, rel=1e-4)


def test_stops_when_nothing_gets_better(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    import training.train as module

    losses = iter([3.0, 2.0, 2.5, 2.4, 1.0])
    measure = module.validate

    def worse(*args: Any) -> Any:
        return replace(measure(*args), loss=next(losses))

    monkeypatch.setattr(module, "validate", worse)
    _, history = _train(splits, epochs=5, patience=2)
    assert [epoch.number for epoch in history.epochs] == [1, 2, 3, 4] and history.best.number == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"rate_penalty": 0.1},
        {"precision": "bfloat16"},
        {"exit_weights": [0.0, 1.0]},
        {"label_smoothing": 0.1},
        {"optimizer": "sgd", "momentum": 0.8, "learning_rate": 0.05},
        {"augment": "crop-flip"},
    ],
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
    for shift, said in ((1, "has label 10 in row"), (-1, "has label -1 in row")):
        labels = type(rows)(inputs=rows.inputs, labels_N=rows.labels_N + shift, sha256={})
        with pytest.raises(ConfigError, match=f"{said} .*The network has 10 classes, labels 0 to 9"):
            train(small(), labels, splits.validation, _settings(), threads=1, report=Silent())
        with pytest.raises(ConfigError, match=said):
            train(small(), rows, labels, _settings(), threads=1, report=Silent())
    none = rows.take(np.array([], np.int64))
    with pytest.raises(ConfigError, match="The validation split is empty"):
        train(small(), rows, none, _settings(), threads=1, report=Silent())


def test_numbers_that_are_none() -> None:
    network = vectors()
    x = np.ones((1500, 6), np.float32)
    rows = Examples(inputs={"x": x}, labels_N=np.arange(1500) % 3, sha256={})
    x[1203, 2] = np.nan
    with pytest.raises(ConfigError, match="The train split's 'x' holds NaN or infinity in row 1203"):
        train(network, rows, rows, _settings(), threads=1, report=Silent())
    x[1203, 2] = 0
    with pytest.raises(ConfigError, match=r"augment has no effect: the network's inputs are no images"):
        train(network, rows, rows, _settings(augment="crop-flip"), threads=1, report=Silent())


def test_rate_grows_with_magnitude() -> None:
    assert rate(torch.zeros(5)) == 0.0
    assert rate(torch.full((5,), 0.5)) == pytest.approx(1.0)
    assert rate(torch.full((5,), -1.5)) == pytest.approx(2.0)


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], splits: Splits) -> None:
    with progress("train", 10) as report:
        report.advance()
        report.line("epoch 1/2: 99.1 %, about 5 s left")
    captured = capsys.readouterr()
    assert captured.err == "epoch 1/2: 99.1 %, about 5 s left\n" and captured.out == ""
    with progress("train", 10) as report:
        report.line("rows of ./nets.py:two: [train] 10 [/test]")  # neither an emoji's name nor markup
    assert capsys.readouterr().err == "rows of ./nets.py:two: [train] 10 [/test]\n"
    with progress("train", 10, quiet=True) as report:
        report.line("nothing")
    assert capsys.readouterr().err == ""
