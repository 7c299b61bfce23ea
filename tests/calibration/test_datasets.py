import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from calibration.datasets import DATASETS, divide, load_test, load_train
from calibration.download import fetch
from calibration.settings import DataSettings
from common.errors import ConfigError
from tests.synthetic import write_data, write_idx, write_split

SETTINGS = DataSettings(dataset="mnist", seed=3, validation=10, tune=20, calibration=30)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "www"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", folder
        http.shutdown()
        thread.join()


@pytest.mark.parametrize("where", [".", "mnist"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reads_a_folder_or_its_subfolder(tmp_path: Path, where: str, suffix: str) -> None:
    write_split(tmp_path / where, "train", 100, seed=1, suffix=suffix)
    examples = load_train(SETTINGS, tmp_path)
    assert len(examples) == 100
    assert examples.inputs["image"].shape == (100, 1, 8, 8)
    assert examples.labels_N.dtype == np.int64
    assert set(examples.sha256) == {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"}


def test_parts_of_the_train_split_share_no_row(tmp_path: Path) -> None:
    write_data(tmp_path, train=200)
    official = load_train(SETTINGS, tmp_path)
    numbered = type(official)(
        inputs={"image": np.arange(200)}, labels_N=official.labels_N, sha256=official.sha256
    )  # rows that can be told apart
    splits = divide(numbered, SETTINGS)
    parts = [part.inputs["image"] for part in (splits.train, splits.validation, splits.tune, splits.calibration)]
    assert [len(part) for part in parts] == [140, 10, 20, 30]
    assert sorted(np.concatenate(parts)) == list(range(200))
    again = divide(numbered, SETTINGS)
    assert np.array_equal(again.calibration.inputs["image"], parts[3])
    other = divide(numbered, SETTINGS.model_copy(update={"seed": 4}))
    assert not np.array_equal(other.calibration.inputs["image"], parts[3])


def test_some_rows_must_be_left_to_train_on(tmp_path: Path) -> None:
    write_data(tmp_path, train=60)
    with pytest.raises(ConfigError, match=r"ask for 60 rows\. The train split has 60"):
        divide(load_train(SETTINGS, tmp_path), SETTINGS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t10k-images-idx3-ubyte or .*\.gz is neither in .*--data-dir"):
        load_test(SETTINGS, tmp_path)


def test_an_unknown_data_set_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data.dataset is 'minst'\. It must be one of mnist"):
        load_train(SETTINGS.model_copy(update={"dataset": "minst"}), None)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_data(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(7, np.uint8))
    with pytest.raises(ConfigError, match=r"1200 images but .* 7 labels"):
        load_train(SETTINGS, tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.full(1200, 10, np.uint8))
    with pytest.raises(ConfigError, match=r"holds label 10\. mnist has 10 classes"):
        load_train(SETTINGS, tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(0, np.uint8))
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((0, 8, 8), np.uint8))
    with pytest.raises(ConfigError, match="holds no images"):
        load_train(SETTINGS, tmp_path)


def test_downloads_once_and_checks(tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = server
    write_data(folder, train=100, test=50)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = SETTINGS.model_copy(update={"url": url + "/"})
    with pytest.raises(ConfigError, match=r"has sha256 .* unpacked\. It must be ba891046"):
        load_train(settings, None)
    assert not list((tmp_path / "cache").rglob("*.gz"))

    expected = load_train(SETTINGS, folder)
    known = DATASETS["mnist"]
    monkeypatch.setitem(DATASETS, "mnist", type(known)(**{**vars(known), "train": expected.sha256}))
    assert np.array_equal(load_train(settings, None).labels_N, expected.labels_N)
    for path in folder.iterdir():
        path.unlink()
    assert len(load_train(settings, None)) == 100  # from the cache
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".gz"]


def test_a_failed_download_is_one_sentence(tmp_path: Path, server: tuple[str, Path]) -> None:
    url, folder = server
    (folder / "plain.gz").write_bytes(b"plain")
    target = tmp_path / "x.gz"
    for name, said in (
        ("absent.gz", "cannot be fetched: File not found.*--data-dir"),
        ("plain.gz", "not return a gzip file"),
    ):
        with pytest.raises(ConfigError, match=said):
            fetch(f"{url}/{name}", target, hashlib.sha256(b"").hexdigest())
    with pytest.raises(ConfigError, match="cannot be fetched"):
        fetch("nonsense", target, "")
    assert not target.exists()
