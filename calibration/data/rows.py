"""From named arrays to rows with labels: what a `.npz` file holds, or a user's function returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from calibration.data.checks import checked_groups, checked_inputs, checked_labels, plain_array, same_length
from calibration.data.examples import Examples
from calibration.settings import DataSettings
from common.errors import ConfigError
from common.types import Array

LABELS = ("label", "labels", "y", "target", "targets", "class")
GROUPS = ("group", "groups")
_CLASSES = ("classes", "class_names")
_SPLITS = ("train", "test")

Arrays = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class Given:
    """Rows as they were given; `test` is None where they bring no test rows."""

    train: Examples
    test: Examples | None = None


def rows_of(arrays: Arrays, settings: DataSettings, what: str) -> Given:
    """Find inputs, labels and groups among named arrays, and the test rows if they are told apart.

    Test rows are told apart by names (`x_train`, `x_test`) or by an array `split` of "train" and "test".

    Raises:
        ConfigError: naming the array that is missing or wrong.
    """
    named = {name: array for name, array in arrays.items() if name not in settings.ignore}
    for name in settings.ignore:
        if name not in arrays:
            raise ConfigError(f"data.ignore names {name!r}. {what} has {', '.join(arrays) or 'nothing'}.")
    classes = _class_names(named, settings, what)
    if any(name.endswith("_train") for name in named):
        parts = _by_name(named, what)
        train = examples_of(parts["train"], settings, classes, f"{what}, train rows")
        if not parts["test"]:
            return Given(train=train)
        return Given(train=train, test=examples_like(train, parts["test"], settings, f"{what}, test rows"))
    split = named.pop("split", None)
    if split is None:
        return Given(train=examples_of(named, settings, classes, what))
    at = _by_value(split, named, what)
    every = examples_of(named, settings, classes, what)
    return Given(train=every.take(at["train"]), test=every.take(at["test"]))


def examples_of(arrays: Arrays, settings: DataSettings, classes: tuple[str, ...], what: str) -> Examples:
    """Rows of arrays that all belong to one split; the labels and the group are found by name."""
    same_length(arrays, what)
    inputs = dict(arrays)
    labels = _taken(inputs, settings.label, LABELS)
    if labels is None:
        raise ConfigError(
            f"{what} has no {'array ' + repr(settings.label) if settings.label else 'labels'}: it has "
            f"{', '.join(arrays)}. data.label names the array of labels."
        )
    groups = _taken(inputs, settings.group, GROUPS)
    if groups is None and settings.group is not None:
        raise ConfigError(f"data.group is {settings.group!r}. {what} has {', '.join(arrays)}.")
    if settings.input is not None:
        for name in settings.input:
            if name not in inputs:
                raise ConfigError(f"data.input names {name!r}. {what} has {', '.join(inputs) or 'nothing'}.")
        inputs = {name: inputs[name] for name in settings.input}
    return checked_examples(inputs, labels, groups, classes, what)


def examples_like(train: Examples, arrays: Arrays, settings: DataSettings, what: str) -> Examples:
    """Test rows: their classes and inputs are those of the train rows."""
    test = examples_of(arrays, settings, train.classes, what)
    return agreeing(train, test, what)


def agreeing(train: Examples, test: Examples, what: str) -> Examples:
    """The test rows with the train rows' classes.

    Raises:
        ConfigError: when their inputs differ from those of the train rows in name, type or row shape.
    """
    for name in sorted({*train.inputs, *test.inputs}):
        if name not in test.inputs or name not in train.inputs:
            where = what if name not in test.inputs else "the train rows"
            raise ConfigError(f"{where} lacks the input {name!r}: train and test rows must have the same inputs.")
        a, b = train.inputs[name], test.inputs[name]
        if a.dtype != b.dtype or a.shape[1:] != b.shape[1:]:
            raise ConfigError(
                f"{what}: {name} is {b.dtype.name} {list(b.shape[1:])}. "
                f"In the train rows it is {a.dtype.name} {list(a.shape[1:])}."
            )
    if bool(train.classes) != bool(test.classes):
        raise ConfigError(f"{what} has labels of another kind than the train rows: names on one side, numbers on one.")
    return test


def checked_examples(
    inputs: Arrays, labels: Array, groups: Array | None, classes: tuple[str, ...], what: str
) -> Examples:
    """Rows whose inputs, labels and groups have been looked at; no checksums yet."""
    everything = {**inputs, "labels": labels} | ({} if groups is None else {"groups": groups})
    same_length(everything, what)
    labels_N, names = checked_labels(labels, classes, f"{what}: the labels")
    return Examples(
        inputs=checked_inputs(inputs, what),
        labels_N=labels_N,
        sha256={},
        classes=names,
        groups_N=None if groups is None else checked_groups(groups, f"{what}: the groups"),
    )


def _taken(arrays: dict[str, Array], name: str | None, usual: tuple[str, ...]) -> Array | None:
    if name is not None:
        return arrays.pop(name, None)
    found = next((one for one in usual if one in arrays), None)
    return None if found is None else arrays.pop(found)


def _class_names(named: dict[str, Array], settings: DataSettings, what: str) -> tuple[str, ...]:
    """Names of the classes, where an array of text says them; it is taken out."""
    for key in _CLASSES:
        if key in named and key not in (settings.label, settings.group) and named[key].dtype.kind in "US":
            return distinct(tuple(str(name) for name in named.pop(key).astype(str).ravel()), f"{what}: {key}")
    return ()


def distinct(names: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Names of classes, else ConfigError where one appears twice."""
    if twins := sorted(name for name in set(names) if names.count(name) > 1):
        raise ConfigError(f"{what} names {twins[0]!r} twice.")
    return names


def _by_name(named: Arrays, what: str) -> dict[str, dict[str, Array]]:
    parts: dict[str, dict[str, Array]] = {"train": {}, "test": {}}
    for name, array in named.items():
        stem, _, split = name.rpartition("_")
        if split not in parts or not stem:
            raise ConfigError(
                f"{what}: {name} belongs to no split, since other arrays end with _train. Let it end with _train or "
                "_test, or name it in data.ignore."
            )
        parts[split][stem] = array
    return parts


def _by_value(split: Array, named: Arrays, what: str) -> dict[str, Array]:
    split = plain_array(split, f"{what}: split")
    same_length({"split": split, **named}, what)
    words = np.char.strip(split.astype(str)) if split.ndim == 1 and split.dtype.kind in "US" else np.array(["?"])
    if len(wrong := np.flatnonzero(~np.isin(words, _SPLITS))):
        raise ConfigError(
            f"{what}: split holds {split.ravel()[wrong[0]]!s} in row {wrong[0]}. "
            "It must say train or test for each row."
        )
    at = {name: np.flatnonzero(words == name) for name in _SPLITS}
    for name, rows in at.items():
        if not len(rows):
            raise ConfigError(f"{what}: split says {name} for no row.")
    return at
