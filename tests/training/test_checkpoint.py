import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calibration.datasets import Splits, divide, load_train
from calibration.settings import DataSettings
from common.errors import ConfigError
from tests.synthetic import recipe
from tests.training.nets import small, write_recipe
from training.arrays import read_arrays
from training.build import build, train_weights
from training.history import History
from training.methods import METHODS
from training.network import MultiExitNetwork
from training.settings import TrainingSettings
from training.train import train

ROOT = Path(__file__).parents[2]
DISTORTED: dict[str, Any] = {"degrees": 5.0, "elastic": 0.05, "crop": 1, "flip": True}


@pytest.fixture(scope="module")
def splits(data: Path) -> Splits:
    settings = DataSettings(**recipe()["data"])
    return divide(load_train(settings, data), settings)


class Cut(Exception):
    """The end of a process, for a test."""


class _Cutting:
    """Ends the run after so many epochs' lines."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs
        self.steps = 0
        self.lines: list[str] = []

    def advance(self, steps: int = 1) -> None:
        self.steps += steps
        if self.left == 0:
            raise Cut  # in the midst of the epoch after

    def line(self, text: str) -> None:
        self.lines.append(text)
        self.left -= text.startswith("epoch")


def _settings(name: str, **changes: Any) -> TrainingSettings:
    return METHODS[name](**{"epochs": 3, "batch_size": 100, "augment": DISTORTED, **changes})


def _run(
    splits: Splits, settings: TrainingSettings, path: Path | None, cut: int = -1
) -> tuple[MultiExitNetwork, History, _Cutting]:
    torch.manual_seed(3)
    network, report = small(), _Cutting(cut)
    history = train(network, splits.train, splits.validation, settings, threads=1, report=report, checkpoint=path)
    return network, history, report


@pytest.mark.parametrize("cut", [1, 2, 4])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mixed", {"backbone_epochs": 2, "exit_weights": "ramp"}),
        ("gated", {"epochs": 5, "optimizer": "sgd", "learning_rate": 0.05, "precision": "bfloat16"}),
        ("layer-wise", {"patience": 1, "learning_rate": 0.3}),
    ],
)
def test_a_run_that_was_cut_off_ends_with_the_same_bits(
    tmp_path: Path, splits: Splits, name: str, settings: dict[str, Any], cut: int
) -> None:
    given, path = _settings(name, **settings), tmp_path / "c.npz"
    whole, history, _ = _run(splits, given, None)
    assert len(history.epochs) > 4 or name == "layer-wise"
    try:
        _run(splits, given, path, cut)
    except Cut:
        assert [file.name for file in tmp_path.iterdir()] == ["c.npz"]
    resumed, again, report = _run(splits, given, path)
    assert report.lines[1].startswith(f"going on after epoch {cut} of ")
    assert again == history
    assert report.steps == 4 * len(history.epochs)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_a_process_that_is_killed_goes_on(tmp_path: Path, data: Path) -> None:
    (tmp_path / "net.py").write_text("from tests.training.nets import small\n\n\ndef build():\n    return small()\n")
    path = write_recipe(tmp_path / "r.yaml", epochs=80, batch_size=50, augment=DISTORTED)
    path.write_text(path.read_text().replace("factory: small", "factory: ./net.py:build"))
    arguments = ["train", str(path), "--data-dir", str(data), "--threads", "1", "--quiet"]
    killed, kept = tmp_path / "killed.npz", tmp_path / "killed.checkpoint.npz"
    process = subprocess.Popen([sys.executable, "-m", "offramp", *arguments, "--out", str(killed)], cwd=ROOT)
    while not kept.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not killed.exists()
    read_arrays(kept, "a whole archive")
    train_weights(path, killed, data, threads=1, quiet=True)
    train_weights(path, tmp_path / "whole.npz", data, threads=1, quiet=True)
    assert not kept.exists() and killed.with_suffix(".png").read_bytes()[1:4] == b"PNG"
    with np.load(killed) as one, np.load(tmp_path / "whole.npz") as other:
        assert one.files == other.files
        assert all(np.array_equal(one[name], other[name]) for name in one.files)


def test_a_build_that_fails_later_keeps_its_training(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import training.build as module

    path = write_recipe(tmp_path / "r.yaml", epochs=1)

    def fails(*args: Any, **kwargs: Any) -> None:
        raise ConfigError("no calibration.")

    with monkeypatch.context() as patch:
        patch.setattr(module, "calibrate", fails)
        with pytest.raises(ConfigError, match="no calibration"):
            build(path, tmp_path / "out", data, threads=1, quiet=True)
    assert {file.name for file in tmp_path.iterdir()} == {"r.yaml", "out.checkpoint.npz"}
    monkeypatch.setattr("training.train._Run._epoch", fails)  # nothing is left to train
    build(path, tmp_path / "out", data, threads=1, quiet=True)
    assert {file.name for file in tmp_path.iterdir()} == {"r.yaml", "out"}


def test_the_state_of_another_run_is_refused(tmp_path: Path, splits: Splits) -> None:
    path = tmp_path / "c.npz"
    _run(splits, _settings("joint", epochs=1), path)
    before = path.read_bytes()
    for settings, rows, said in (
        (_settings("joint", epochs=2), splits.train, "other training settings"),
        (_settings("distilled", epochs=1), splits.train, "other training settings"),
        (_settings("joint", epochs=1), splits.tune, "other data"),
    ):
        torch.manual_seed(3)
        with pytest.raises(ConfigError, match=rf"c\.npz holds the state of a training with {said}\. Go on with"):
            train(small(), rows, splits.validation, settings, threads=1, report=_Cutting(-1), checkpoint=path)
    torch.manual_seed(4)
    with pytest.raises(ConfigError, match="with other network"):
        train(
            small(),
            splits.train,
            splits.validation,
            _settings("joint", epochs=1),
            threads=1,
            report=_Cutting(-1),
            checkpoint=path,
        )
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["text", "cut", "other"])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, splits: Splits, kind: str) -> None:
    path = tmp_path / "c.npz"
    _run(splits, _settings("joint", epochs=1), path)
    if kind == "text":
        path.write_text("x")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    else:
        np.savez(path, x=np.zeros(3))
    with pytest.raises(ConfigError, match=r"c\.npz does not hold the state of a training") as caught:
        _run(splits, _settings("joint", epochs=1), path)
    assert "\n" not in str(caught.value)


def test_a_run_that_cannot_go_on_leaves_nothing(tmp_path: Path, splits: Splits) -> None:
    settings = _settings("joint", learning_rate=1e30)
    with pytest.raises(ConfigError, match="lower training"):
        _run(splits, settings, tmp_path / "c.npz")
    with pytest.raises(ConfigError, match=r"absent.c\.npz cannot be written"):
        _run(splits, _settings("joint"), tmp_path / "absent" / "c.npz")
    assert not list(tmp_path.iterdir())
