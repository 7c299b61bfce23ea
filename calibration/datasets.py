"""Rows with labels, divided into five splits: train, validation, tune, certify and test.

Where a data set brings test rows, whoever calibrates never looks at them; else they are set aside first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from calibration.data.division import as_rows, divided, units_of
from calibration.data.duplicates import refuse_shared, without_shared
from calibration.data.examples import Examples
from calibration.data.rows import agreeing
from calibration.data.source import Source
from calibration.settings import DataSettings
from common.errors import ConfigError
from common.types import Array

__all__ = ["Data", "Examples", "Splits", "divide", "load_test", "load_train", "open_data"]

_TEST_SHARE = 0.15  # set aside where a data set brings no test rows
_TEST_DRAW = 1  # tells the seed of that draw from the other one's


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The train rows, divided. Each part has one use."""

    train: Examples  # fits weights
    validation: Examples  # picks the best epoch, the recipe, where exits are placed
    tune: Examples  # temperatures, quantiser ranges, candidate thresholds, ladders
    certify: Examples  # opened once, for a certificate


@dataclass(frozen=True)
class Data:
    """The rows of a recipe's data section, read when they are asked for."""

    source: Source

    @property
    def settings(self) -> DataSettings:
        """The recipe's data section."""
        return self.source.settings

    @cached_property
    def train(self) -> Examples:
        """The rows that are divided into train, validation, tune and certify."""
        rows, test = self.source.train, self.source.test if self._drops else None
        if test is not None:
            return without_shared(rows, test, self.source.name)
        return rows.take(self._set_aside["rest"]) if self.draws else rows

    @cached_property
    def test(self) -> Examples:
        """The test rows, for the final evaluation only."""
        if self.draws:
            return self.source.train.take(self._set_aside["test"])
        assert self.source.test is not None
        return self.source.test

    @cached_property
    def splits(self) -> Splits:
        """The train rows, divided."""
        return divide(self.train, self.settings)

    def check(self) -> None:
        """Look at train and test rows together, once, before anything is built.

        Raises:
            ConfigError: for train rows that are test rows as well, groups on both sides, and classes that no train
                row has.
        """
        splits, test = self.splits, self.test
        if not self.draws:
            agreeing(self.train, test, f"{self.source.name}, test rows")
            if not self._drops:
                refuse_shared(self.train, test, self.source.name)
            _refuse_shared_groups(self.train, test, self.source.name)
        given = [self.source.train] + ([] if self.source.test is None else [self.source.test])
        _refuse_unseen(splits.train, given, self.source.name)

    def check_classes(self, count: int) -> None:
        """ConfigError for a label that a network of so many classes cannot give, naming its row as the data have it."""
        labels_N = self.source.train.labels_N
        beyond_N = labels_N >= count
        if beyond_N.any():
            row = int(beyond_N.argmax())
            raise ConfigError(
                f"{self.source.name}: row {row} has label {labels_N[row]}. "
                f"The network has {count} classes, labels 0 to {count - 1}."
            )

    def describe(self) -> Mapping[str, int]:
        """Rows of every split."""
        splits = self.splits
        parts = {"train": splits.train, "validation": splits.validation, "tune": splits.tune, "certify": splits.certify}
        return {**{name: len(part) for name, part in parts.items()}, "test": len(self.test)}

    @property
    def draws(self) -> bool:
        """Whether test rows are set aside, since the data bring none."""
        return self.source.draws

    @property
    def _drops(self) -> bool:
        return self.settings.duplicates == "drop" and not self.draws

    @cached_property
    def _set_aside(self) -> dict[str, Array]:
        rows, settings = self.source.train, self.settings
        share = settings.test if isinstance(settings.test, int | float) else _TEST_SHARE
        size = as_rows("test", share, len(rows), self.source.name)
        random = np.random.Generator(np.random.PCG64([settings.seed, _TEST_DRAW]))
        return divided(units_of(rows), {"test": size}, random, self.source.name)


def open_data(settings: DataSettings, data_dir: Path | None = None, home: Path | None = None) -> Data:
    """The data of a recipe; nothing is read yet.

    Args:
        settings: the recipe's data section.
        data_dir: the folder of the files, or one that has them in a subfolder named like the data set; None fetches
            known data sets once, checked, into the cache, and takes the user's own from where the recipe names them.
        home: the recipe's folder; None: the recipe comes out of a bundle, and names start at the current folder.
    """
    return Data(Source(settings, data_dir, home))


def load_train(settings: DataSettings, data_dir: Path | None, home: Path | None = None) -> Examples:
    """The rows that are divided; arguments as `open_data`.

    Raises:
        ConfigError: when files are missing, damaged or do not belong together.
    """
    return open_data(settings, data_dir, home).train


def load_test(settings: DataSettings, data_dir: Path | None, home: Path | None = None) -> Examples:
    """The test rows, for the final evaluation only; arguments and errors as `load_train`."""
    return open_data(settings, data_dir, home).test


def divide(train: Examples, settings: DataSettings) -> Splits:
    """Divide the train rows by a permutation that the recipe's seed fixes; rows that belong together stay together.

    Raises:
        ConfigError: when a split would be empty.
    """
    sizes = {name: as_rows(name, size, len(train), "the train split") for name, size in settings.sizes.items()}
    random = np.random.Generator(np.random.PCG64(settings.seed))
    at = divided(units_of(train), sizes, random, "The train split")
    return Splits(
        train=train.take(at["rest"]),
        validation=train.take(at["validation"]),
        tune=train.take(at["tune"]),
        certify=train.take(at["certify"]),
    )


def _refuse_shared_groups(train: Examples, test: Examples, what: str) -> None:
    if train.groups_N is None or test.groups_N is None:
        return
    shared = np.intersect1d(train.groups_N, test.groups_N)
    if len(shared):
        raise ConfigError(
            f"{what}: group {shared[0]!s} has rows among the train rows and among the test rows"
            f"{f', and so have {len(shared) - 1} others' if len(shared) > 1 else ''}."
        )


def _called(train: Examples, label: int) -> str:
    return repr(train.classes[label]) if train.classes else str(label)


def _refuse_unseen(train: Examples, given: list[Examples], what: str) -> None:
    """A network cannot learn a class that no train row has; `given` has all rows in their order."""
    count = max(len(train.classes), *(int(part.labels_N.max()) + 1 for part in given))
    seen = np.bincount(train.labels_N, minlength=count) > 0
    if seen.all():
        if count == 1:
            raise ConfigError(f"{what}: every row has label {_called(train, 0)}. There must be at least two classes.")
        return
    label = int(np.flatnonzero(~seen)[0])
    rows = sum(int((part.labels_N == label).sum()) for part in given)
    called = f"{what}: class {_called(train, label)}"
    if rows:
        place = _first([part.labels_N == label for part in given])
        found = f"only {place}" if rows == 1 else f"{rows} rows, {place} first"
        raise ConfigError(f"{called} has {found}, and none in the train split.")
    hint = "" if train.classes else f" Labels are numbered from 0, without gaps{_stray(given, label)}."
    raise ConfigError(f"{called} has no rows.{hint}")


def _stray(given: list[Examples], missing: int) -> str:
    """Where the first label above a missing one stands, if few rows have any: a mistake more likely than classes."""
    labels_N = np.concatenate([part.labels_N for part in given])
    above_N = labels_N > missing
    above = int(above_N.sum())
    if not 0 < above < int((labels_N < missing).sum()):
        return ""
    where = _first([part.labels_N > missing for part in given])
    return f", and {above} row{' has' if above == 1 else 's have'} a larger one: {labels_N[above_N][0]} in {where}"


def _first(found: list[Array]) -> str:
    """The first row that was found, among the train rows or else among the test rows."""
    side = next(number for number, found_N in enumerate(found) if found_N.any())
    return f"{'test ' * side}row {int(found[side].argmax())}"
