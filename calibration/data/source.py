"""From a recipe's data section to rows: which reader takes a data set, and which keys it understands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from calibration.data.examples import Examples
from calibration.data.files import find, sha256_of
from calibration.data.folder import read_folder
from calibration.data.function import is_function, read_function
from calibration.data.known import DATASETS, read_known
from calibration.data.npz import read_npz
from calibration.data.rows import Arrays, Given, examples_like, rows_of
from calibration.data.table import read_table
from calibration.data.tokens import read_tokens
from calibration.settings import DataSettings
from common.errors import ConfigError
from common.types import Array

_FORMATS = {".npz": "npz", ".csv": "table", ".tsv": "table", ".txt": "tokens"}
_KEYS = {  # beside dataset, seed, sizes and duplicates
    "known": {"url"},
    "npz": {"test", "label", "group", "input", "ignore"},
    "table": {"test", "label", "group", "input", "ignore", "shape", "dtype"},
    "tokens": {"test", "input"},
    "folder": {"test", "input", "size", "mode", "fit"},
    "function": {"test", "label", "group", "input", "ignore", "options"},
}
_OPTIONAL = {"url", "test", "label", "group", "input", "ignore", "size", "mode", "fit", "shape", "dtype", "options"}


@dataclass(frozen=True)
class Source:
    """Rows as they were given. The two sides of a known set are read apart; other data are read as a whole."""

    settings: DataSettings
    data_dir: Path | None
    home: Path | None  # the recipe's folder; None: the settings come from a bundle

    @property
    def name(self) -> str:
        """Of the data set, for messages."""
        return self.settings.dataset

    @property
    def draws(self) -> bool:
        """Whether test rows have to be set aside, since none are given."""
        return self._kind != "known" and self._given.test is None

    @cached_property
    def train(self) -> Examples:
        """The train rows; all rows where test rows are not given."""
        return self._known("train") if self._kind == "known" else self._given.train

    @cached_property
    def test(self) -> Examples | None:
        """The test rows; None where they are not given."""
        return self._known("test") if self._kind == "known" else self._given.test

    def _known(self, split: str) -> Examples:
        self._check_keys()
        return read_known(self.settings.dataset, split, self.data_dir, self.settings.url)

    @cached_property
    def _kind(self) -> str:
        name = self.settings.dataset
        if name in DATASETS:
            return "known"
        if is_function(name):
            return "function"
        if (found := _FORMATS.get(Path(name).suffix.lower())) is not None:
            return found
        if "/" in name or (self.home or Path()).joinpath(name).is_dir():
            return "folder"
        raise ConfigError(
            f"data.dataset is {name!r}. It must be one of {', '.join(sorted(DATASETS))}, or rows of your own: "
            "./FILE.npz, ./FILE.csv, ./FILE.txt, ./FOLDER of images, or ./FILE.py:FUNCTION."
        )

    @cached_property
    def _given(self) -> Given:
        self._check_keys()
        test = self.settings.test if isinstance(self.settings.test, str) else None
        kind = self._kind
        if kind == "function":
            given = self._function(test)
        elif kind == "folder":
            root = self._find(self.settings.dataset)
            if not root.is_dir():
                raise ConfigError(f"{root} is a file of a kind that is not known. docs/data.md lists those that are.")
            given = read_folder(root, None if test is None else self._find(test), self.settings)
        else:
            given = self._arrays(kind, test)
        if given.test is not None and isinstance(self.settings.test, int | float):
            raise ConfigError(f"data.test is {self.settings.test}, but {self.name} brings test rows of its own.")
        return given

    def _function(self, test: str | None) -> Given:
        if test is not None:
            raise ConfigError(f"data.test is {test!r}. A function returns its test rows itself.")
        file, _, name = self.settings.dataset.rpartition(":")
        if not file.endswith(".py") or not name.isidentifier():
            raise ConfigError(f"data.dataset is {self.settings.dataset!r}. It must be FILE.py:FUNCTION.")
        if self.home is None:
            # A bundle may come from anyone: what it names is run only where the user points at it.
            if self.data_dir is None:
                raise ConfigError(
                    f"The rows come from the function {name!r} in {Path(file).name}. To run it, name the folder that "
                    "holds this file with --data-dir."
                )
            return read_function(find(Path(file).name, self.data_dir, self.data_dir), name, self.settings)
        return read_function(self._find(file), name, self.settings)

    def _arrays(self, kind: str, test: str | None) -> Given:
        path = self._find(self.settings.dataset)
        arrays, settings = self._read(kind, path)
        if test is None:
            return _with_sha256(rows_of(arrays, settings, path.name), path, path)
        other = self._find(test)
        if other.suffix.lower() != path.suffix.lower():
            raise ConfigError(f"data.test is {test!r}. It must be a file like {path.name}.")
        others, _ = self._read(kind, other)
        if kind == "tokens":
            arrays, others = _equally_long(arrays, others)
        train = rows_of(arrays, settings, path.name)
        if train.test is not None or any(name == "split" or name.endswith("_train") for name in others):
            raise ConfigError(f"data.test is {test!r}, but {path.name} tells train and test rows apart itself.")
        given = Given(train=train.train, test=examples_like(train.train, others, settings, other.name))
        return _with_sha256(given, path, other)

    def _read(self, kind: str, path: Path) -> tuple[Arrays, DataSettings]:
        """Arrays of a file, and the settings that name them."""
        if kind == "npz":
            return read_npz(path), self.settings
        plain = self.settings.model_copy(update={"label": "labels", "input": None, "ignore": []})
        if kind == "tokens":
            return read_tokens(path, self.settings), plain
        arrays = read_table(path, self.settings)
        return arrays, plain.model_copy(update={"group": "group" if "group" in arrays else None})

    def _find(self, name: str) -> Path:
        return find(name, self.data_dir, self.home)

    def _check_keys(self) -> None:
        """ConfigError for a key that would have no effect."""
        kind = self._kind
        for key in sorted(_OPTIONAL - _KEYS[kind]):
            if getattr(self.settings, key) not in (None, [], {}):
                raise ConfigError(f"data.{key} has no effect on {self.name}.")


def _with_sha256(given: Given, train: Path, test: Path) -> Given:
    first = replace(given.train, sha256={train.name: sha256_of(train)})
    if given.test is None:
        return Given(train=first)
    name = test.name if test.name != train.name or test == train else f"test/{test.name}"
    return Given(train=first, test=replace(given.test, sha256={name: sha256_of(test)}))


def _equally_long(first: Arrays, second: Arrays) -> tuple[dict[str, Array], dict[str, Array]]:
    """Both with rows of the same length, filled up with zeros."""
    longest = max(array.shape[1] for arrays in (first, second) for array in arrays.values() if array.ndim == 2)

    def filled(array: Array) -> Array:
        return np.pad(array, ((0, 0), (0, longest - array.shape[1]))) if array.ndim == 2 else array

    return {k: filled(a) for k, a in first.items()}, {k: filled(a) for k, a in second.items()}
