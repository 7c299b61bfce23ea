import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.data.download import fetch, fetch_members
from calibration.data.known import DATASETS, CifarSet, IdxSet, read_known
from common.errors import ConfigError
from tests.synthetic import write_data, write_idx, write_split


@pytest.mark.parametrize("where", [".", "mnist"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reads_a_folder_or_its_subfolder(tmp_path: Path, where: str, suffix: str) -> None:
    write_split(tmp_path / where, "train", 100, seed=1, suffix=suffix)
    examples = read_known("mnist", "train", tmp_path)
    assert len(examples) == 100
    assert examples.inputs["image"].shape == (100, 1, 8, 8)
    assert examples.labels_N.dtype == np.int64
    assert examples.classes == tuple("0123456789")
    assert set(examples.sha256) == {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t10k-images-idx3-ubyte or .*\.gz is neither in .*--data-dir"):
        read_known("mnist", "test", tmp_path)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_data(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(7, np.uint8))
    with pytest.raises(ConfigError, match=r"1200 images but .* 7 labels"):
        read_known("mnist", "train", tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", (np.arange(1200) // 8 % 11).astype(np.uint8))
    with pytest.raises(ConfigError, match=r"gz: the labels hold label 10 in row 80\. There are 10 classes"):
        read_known("mnist", "train", tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(3, np.uint8))
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((3, 0, 8), np.uint8))
    with pytest.raises(ConfigError, match=r"has rows of shape \[1, 0, 8\], which hold nothing"):
        read_known("mnist", "train", tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(0, np.uint8))
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((0, 8, 8), np.uint8))
    with pytest.raises(ConfigError, match="holds no images"):
        read_known("mnist", "train", tmp_path)


def test_downloads_once_and_checks(tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = server
    write_data(folder, train=100, test=50)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match=r"has sha256 .* unpacked\. It must be ba891046"):
        read_known("mnist", "train", None, url + "/")
    assert not list((tmp_path / "cache").rglob("*.gz"))

    expected = read_known("mnist", "train", folder)
    known = DATASETS["mnist"]
    assert isinstance(known, IdxSet)
    monkeypatch.setitem(DATASETS, "mnist", replace(known, train=expected.sha256))
    assert np.array_equal(read_known("mnist", "train", None, url + "/").labels_N, expected.labels_N)
    for path in folder.iterdir():
        path.unlink()
    assert len(read_known("mnist", "train", None, url + "/")) == 100  # from the cache
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


def write_cifar(path: Path, labels: list[int], *, label_bytes: int = 1, seed: int = 0) -> np.ndarray:
    """Write images of random bytes; returns them, [N, 3, 32, 32]."""
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 3, 32, 32), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        bytes([99] * (label_bytes - 1) + [label]) + image.tobytes() for label, image in zip(labels, images, strict=True)
    ]
    path.write_bytes(b"".join(rows))
    return images


def cifar_files(folder: Path) -> np.ndarray:
    """Six small files of CIFAR-10; returns the train images."""
    write_cifar(folder / "test_batch.bin", [4, 5], seed=9)
    return np.concatenate([write_cifar(folder / f"data_batch_{k}.bin", [k, 9], seed=k) for k in range(1, 6)])


@pytest.mark.parametrize("where", [".", "cifar-10", "cifar-10-batches-bin", "cifar-10/cifar-10-batches-bin"])
def test_reads_the_binary_files_of_cifar(tmp_path: Path, where: str) -> None:
    images = cifar_files(tmp_path / where)
    examples = read_known("cifar-10", "train", tmp_path)
    assert np.array_equal(examples.inputs["image"], images) and examples.inputs["image"].dtype == np.uint8
    assert examples.labels_N.tolist() == [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]
    assert examples.classes[9] == "truck" and len(examples.sha256) == 5
    assert read_known("cifar-10", "test", tmp_path).labels_N.tolist() == [4, 5]


def test_cifar_100_takes_the_fine_label(tmp_path: Path) -> None:
    write_cifar(tmp_path / "test.bin", [0, 99], label_bytes=2)
    examples = read_known("cifar-100", "test", tmp_path)
    assert examples.labels_N.tolist() == [0, 99] and len(examples.classes) == 100
    assert examples.classes[0] == "apple" and examples.classes[99] == "worm"


def test_damaged_files_of_cifar_are_refused(tmp_path: Path) -> None:
    cifar_files(tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(bytes(3072))
    with pytest.raises(ConfigError, match=r"data_batch_3\.bin has 3072 bytes\. .* a multiple of 3073"):
        read_known("cifar-10", "train", tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="has 0 bytes"):
        read_known("cifar-10", "train", tmp_path)
    write_cifar(tmp_path / "data_batch_3.bin", [0, 9, 10])
    with pytest.raises(
        ConfigError, match=r"data_batch_3\.bin: the labels hold label 10 in row 2\. There are 10 classes"
    ):
        read_known("cifar-10", "train", tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(ConfigError, match=r"data_batch_3\.bin is neither in .* --data-dir"):
        read_known("cifar-10", "train", tmp_path)


def test_downloads_an_archive_once_and_checks(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    images = cifar_files(tmp_path / "made" / "cifar-10-batches-bin")
    archive = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "made", ".")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match=r"tar\.gz has sha256 .*\. It must be c4a38c50"):
        read_known("cifar-10", "train", None, url)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]

    known = DATASETS["cifar-10"]
    assert isinstance(known, CifarSet)
    right = replace(known, sha256=hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setitem(DATASETS, "cifar-10", right)
    assert np.array_equal(read_known("cifar-10", "train", None, url).inputs["image"], images)
    archive.unlink()
    assert len(read_known("cifar-10", "test", None, url)) == 2  # the same archive held both
    assert len([p for p in (tmp_path / "cache").rglob("*") if p.is_file()]) == 6


def test_an_archive_that_cannot_be_unpacked_is_one_sentence(tmp_path: Path, server: tuple[str, Path]) -> None:
    url, folder = server
    with tarfile.open(folder / "lacking.tar.gz", "w:gz") as file:
        file.addfile(tarfile.TarInfo("../../other"), io.BytesIO(b""))
    (folder / "plain.tar.gz").write_bytes(b"plain")
    for name in ("lacking", "plain"):
        path = folder / f"{name}.tar.gz"
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with pytest.raises(ConfigError, match="cannot be unpacked"):
            fetch_members(f"{url}/{path.name}", tmp_path / "out", ["wanted"], sha256)
    assert not (tmp_path / "out").exists()
