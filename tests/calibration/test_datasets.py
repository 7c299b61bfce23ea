from pathlib import Path

import numpy as np
import pytest

from calibration.datasets import divide, load_train, open_data
from calibration.settings import DataSettings
from common.errors import ConfigError
from tests.synthetic import write_data, write_idx

SETTINGS = DataSettings(dataset="mnist", seed=3, validation=10, tune=20, calibration=30)


def test_parts_of_the_train_split_share_no_row(tmp_path: Path) -> None:
    write_data(tmp_path, train=200)
    official = load_train(SETTINGS, tmp_path)
    numbered = type(official)(
        inputs={"image": np.arange(200)}, labels_N=official.labels_N, sha256=official.sha256
    )  # rows that can be told apart
    splits = divide(numbered, SETTINGS)
    parts = [part.inputs["image"] for part in (splits.train, splits.validation, splits.tune, splits.certify)]
    assert [len(part) for part in parts] == [140, 10, 20, 30]
    assert sorted(np.concatenate(parts)) == list(range(200))
    again = divide(numbered, SETTINGS)
    assert np.array_equal(again.certify.inputs["image"], parts[3])
    other = divide(numbered, SETTINGS.model_copy(update={"seed": 4}))
    assert not np.array_equal(other.certify.inputs["image"], parts[3])


def test_some_rows_must_be_left_to_train_on(tmp_path: Path) -> None:
    write_data(tmp_path, train=60)
    with pytest.raises(ConfigError, match=r"ask for 60 rows\. The train split has 60"):
        divide(load_train(SETTINGS, tmp_path), SETTINGS)


def test_an_unknown_data_set_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data.dataset is 'minst'\. It must be one of cifar-10, .*, mnist"):
        load_train(SETTINGS.model_copy(update={"dataset": "minst"}), None)


def test_test_files_of_another_size_are_noticed_before_anything_is_built(tmp_path: Path) -> None:
    write_data(tmp_path, train=200, test=20)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", np.ones((20, 9, 8), np.uint8))
    with pytest.raises(
        ConfigError, match=r"mnist, test rows: image is uint8 \[1, 9, 8\]\. In the train rows it is .*8, 8"
    ):
        open_data(SETTINGS, tmp_path).check()
