"""Data sets with labels, and how the official train split is divided.

Train and test are read apart: whoever calibrates never opens a test file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.download import cache_dir, fetch
from calibration.idx import find_idx, read_idx
from calibration.settings import DataSettings
from common.errors import ConfigError
from common.types import Array, Tensors


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows with labels, and the checksums of the files they came from."""

    inputs: Tensors  # name -> [N, ...] as a door delivers it
    labels_N: Array  # int64, 0..C-1
    sha256: Mapping[str, str]  # file -> of its unpacked content

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, index_N: Array) -> Examples:
        """The rows at these positions."""
        inputs = {name: array[index_N] for name, array in self.inputs.items()}
        return Examples(inputs=inputs, labels_N=self.labels_N[index_N], sha256=self.sha256)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The official train split, divided. Each part has one use."""

    train: Examples  # fits weights
    validation: Examples  # picks the best epoch
    tune: Examples  # temperatures, quantiser ranges, candidate thresholds
    calibration: Examples  # picks thresholds


@dataclass(frozen=True, kw_only=True)
class _IdxFiles:
    """The four files of a data set of the MNIST family, `stem` -> sha256 of the unpacked file."""

    input: str
    classes: tuple[str, ...]
    url: str
    train: Mapping[str, str]
    test: Mapping[str, str]


DATASETS: dict[str, _IdxFiles] = {
    "mnist": _IdxFiles(
        input="image",
        classes=tuple("0123456789"),
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        train={
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        },
        test={
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    )
}


def load_train(settings: DataSettings, data_dir: Path | None) -> Examples:
    """The official train split.

    Args:
        settings: the recipe's data section.
        data_dir: the folder of the files, or one that has them in a subfolder named like the data set; None
            fetches them once, checked, into the cache.

    Raises:
        ConfigError: when files are missing, damaged or do not belong together.
    """
    source = _source(settings)
    return _load(settings, source, source.train, data_dir)


def load_test(settings: DataSettings, data_dir: Path | None) -> Examples:
    """The official test split, for the final evaluation only; arguments and errors as `load_train`."""
    source = _source(settings)
    return _load(settings, source, source.test, data_dir)


def divide(train: Examples, settings: DataSettings) -> Splits:
    """Divide the official train split, by a permutation that the recipe's seed fixes.

    Raises:
        ConfigError: when nothing would be left to train on.
    """
    sizes = (settings.validation, settings.tune, settings.calibration)
    if sum(sizes) >= len(train):
        raise ConfigError(
            f"data: validation, tune and calibration ask for {sum(sizes)} rows. "
            f"The train split has {len(train)}, and some must be left to train on."
        )
    order = np.random.Generator(np.random.PCG64(settings.seed)).permutation(len(train))
    validation, tune, calibration, rest = np.split(order, np.cumsum(sizes))
    return Splits(
        train=train.take(np.sort(rest)),
        validation=train.take(np.sort(validation)),
        tune=train.take(np.sort(tune)),
        calibration=train.take(np.sort(calibration)),
    )


def _source(settings: DataSettings) -> _IdxFiles:
    if settings.dataset not in DATASETS:
        raise ConfigError(f"data.dataset is {settings.dataset!r}. It must be one of {', '.join(sorted(DATASETS))}.")
    return DATASETS[settings.dataset]


def _load(settings: DataSettings, source: _IdxFiles, files: Mapping[str, str], data_dir: Path | None) -> Examples:
    paths = [_locate(settings, source, stem, sha256, data_dir) for stem, sha256 in files.items()]
    images_NHW, images_sha256 = read_idx(paths[0], axes=3)
    labels_N, labels_sha256 = read_idx(paths[1], axes=1)
    if len(images_NHW) != len(labels_N):
        raise ConfigError(f"{paths[0]} has {len(images_NHW)} images but {paths[1]} has {len(labels_N)} labels.")
    if not len(labels_N):
        raise ConfigError(f"{paths[0]} holds no images.")
    if labels_N.max() >= len(source.classes):
        raise ConfigError(
            f"{paths[1]} holds label {labels_N.max()}. {settings.dataset} has {len(source.classes)} classes."
        )
    return Examples(
        inputs={source.input: images_NHW[:, None]},
        labels_N=labels_N.astype(np.int64),
        sha256=dict(zip(files, (images_sha256, labels_sha256), strict=True)),
    )


def _locate(settings: DataSettings, source: _IdxFiles, stem: str, sha256: str, data_dir: Path | None) -> Path:
    if data_dir is None:
        folder = cache_dir() / settings.dataset
        if find_idx(folder, stem) is None:
            base = (settings.url or source.url).rstrip("/")
            fetch(f"{base}/{stem}.gz", folder / f"{stem}.gz", sha256)
        found = find_idx(folder, stem)
        assert found is not None
        return found
    for folder in (data_dir, data_dir / settings.dataset):
        if (found := find_idx(folder, stem)) is not None:
            return found
    raise ConfigError(
        f"{stem} or {stem}.gz is neither in {data_dir} nor in {data_dir / settings.dataset}. "
        "--data-dir names the folder that holds the data set's files."
    )
