"""Data sets with labels, and how the official train split is divided.

Train and test are read apart: whoever calibrates never opens a test file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.data.examples import Examples
from calibration.data.known import DATASETS, read_known
from calibration.settings import DataSettings
from common.errors import ConfigError

__all__ = ["Examples", "Splits", "divide", "load_test", "load_train"]


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The official train split, divided. Each part has one use."""

    train: Examples  # fits weights
    validation: Examples  # picks the best epoch
    tune: Examples  # temperatures, quantiser ranges, candidate thresholds
    calibration: Examples  # picks thresholds


def load_train(settings: DataSettings, data_dir: Path | None) -> Examples:
    """The official train split.

    Args:
        settings: the recipe's data section.
        data_dir: the folder of the files, or one that has them in a subfolder named like the data set; None
            fetches them once, checked, into the cache.

    Raises:
        ConfigError: when files are missing, damaged or do not belong together.
    """
    return _read(settings, "train", data_dir)


def load_test(settings: DataSettings, data_dir: Path | None) -> Examples:
    """The official test split, for the final evaluation only; arguments and errors as `load_train`."""
    return _read(settings, "test", data_dir)


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


def _read(settings: DataSettings, split: str, data_dir: Path | None) -> Examples:
    if settings.dataset not in DATASETS:
        raise ConfigError(f"data.dataset is {settings.dataset!r}. It must be one of {', '.join(sorted(DATASETS))}.")
    return read_known(settings.dataset, split, data_dir, settings.url)
