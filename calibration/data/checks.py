"""What rows, labels and groups must be: whole, finite, of one length, and never pickled."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any

import numpy as np

from common.errors import ConfigError
from common.manifest import DTYPES
from common.types import Array, Tensors

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # of a tensor in a bundle
_CHUNK = 1 << 22  # values looked at together
_MAX_CLASSES = 1_000_000
_SHOWN = 12  # names in a message


def plain_array(value: Any, what: str) -> Array:
    """A value as an array of numbers or text; torch tensors and lists are taken too.

    Raises:
        ConfigError: for objects, rows that differ in length, and what is no array at all.
    """
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)  # a tensor of torch
    except (ValueError, TypeError, RuntimeError) as error:
        if "inhomogeneous" in str(error):
            raise ConfigError(
                f"{what} has rows that differ in length. Fill them up to one length, and give a mask beside them."
            ) from None
        raise ConfigError(f"{what} is a {type(value).__name__} and no array: {str(error).rstrip('.')}.") from None
    if array.dtype.kind not in "biufUS":
        raise ConfigError(f"{what} is an array of {array.dtype}. It must hold numbers or text, and no Python objects.")
    return array


def checked_inputs(arrays: Mapping[str, Array], what: str) -> Tensors:
    """Input tensors by name, [N, ...] each: float64 becomes float32, unsigned numbers above bytes become int64.

    Raises:
        ConfigError: naming the tensor and, for a value that is not finite, its row.
    """
    if not arrays:
        raise ConfigError(f"{what} holds labels but no input.")
    found: Tensors = {}
    for name, array in arrays.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{what}: {name!r} cannot name an input. A name has letters, digits, '.', '_' and '-' and starts "
                "with a letter or digit."
            )
        if array.ndim == 0:
            raise ConfigError(f"{what}: {name} is a single number. Its first axis must be the rows.")
        if 0 in array.shape[1:]:
            raise ConfigError(f"{what}: {name} has rows of shape {list(array.shape[1:])}, which hold nothing.")
        found[name] = _as_input(array, f"{what}: {name}")
    return found


def same_length(arrays: Mapping[str, Array], what: str) -> int:
    """How many rows all arrays have.

    Raises:
        ConfigError: when they differ, or there are none.
    """
    lengths = {name: len(array) for name, array in arrays.items() if array.ndim}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ConfigError(f"{what} has arrays of different length: {said}.")
    rows = next(iter(lengths.values()), 0)
    if not rows:
        raise ConfigError(f"{what} holds no rows.")
    return rows


def checked_labels(labels: Array, classes: tuple[str, ...], what: str) -> tuple[Array, tuple[str, ...]]:
    """Labels as numbers from 0, [N] int64, and the names of the classes.

    Args:
        labels: whole numbers, or names of classes.
        classes: their names where they are known; else names that the labels hold are put in alphabetical order.
        what: names the labels in messages.

    Raises:
        ConfigError: for labels that are neither, or outside the classes.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ConfigError(f"{what} have shape {list(labels.shape)}. It must have one label per row.")
    if labels.dtype.kind in "US":
        return _from_text(labels.astype(str), classes, what)
    whole_N = labels
    if labels.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(labels) | (labels != np.floor(labels)))
        if len(wrong):
            raise ConfigError(f"{what} hold {labels[wrong[0]]} in row {wrong[0]}. Labels must be whole numbers.")
    if len(whole_N) and (whole_N.min() < 0 or whole_N.max() >= (len(classes) or _MAX_CLASSES)):
        bad = int(np.flatnonzero((whole_N < 0) | (whole_N >= (len(classes) or _MAX_CLASSES)))[0])
        known = f"There are {len(classes)} classes, numbered from 0" if classes else "Labels are numbered from 0"
        raise ConfigError(f"{what} hold label {whole_N[bad]:.0f} in row {bad}. {known}.")
    return whole_N.astype(np.int64), classes


def checked_groups(groups: Array, what: str) -> Array:
    """Groups as numbers, [N] int64; rows of equal value belong together.

    Raises:
        ConfigError: when it is not one value per row.
    """
    if groups.ndim != 1:
        raise ConfigError(f"{what} has shape {list(groups.shape)}. It must have one value per row.")
    if groups.dtype.kind == "f" and not np.isfinite(groups).all():
        raise ConfigError(f"{what} holds NaN or infinity in row {int(np.flatnonzero(~np.isfinite(groups))[0])}.")
    return groups


def _as_input(array: Array, what: str) -> Array:
    kind = array.dtype.kind
    if kind in "US":
        raise ConfigError(
            f"{what} holds text. A network takes numbers: name it in data.group, data.label or data.ignore, or turn it "
            "into numbers."
        )
    if kind not in "biuf":
        raise ConfigError(f"{what} is {array.dtype.name}. A network takes real numbers: turn it into such.")
    if kind == "f":
        _finite(array, what)
        if array.dtype.itemsize > 4:
            small = array.astype(np.float32)
            _finite(small, f"{what}, as float32,")
            return small
    if array.dtype.name in DTYPES:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.size and array.max() > np.iinfo(np.int64).max:
        raise ConfigError(f"{what} holds {array.max()}, which is too large for int64.")
    return array.astype(np.int64)


def some(names: Collection[str]) -> str:
    """The first names, and how many more there are, for a message."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(islice(names, _SHOWN)) + more


def _finite(array: Array, what: str) -> None:
    rows = max(1, _CHUNK // max(1, array[:1].size))
    for at in range(0, len(array), rows):
        part = array[at : at + rows]
        good = np.isfinite(part)
        if not good.all():
            row, *place = (int(i) for i in np.argwhere(~good)[0])
            value = "NaN" if np.isnan(part[(row, *place)]) else "infinity"
            raise ConfigError(f"{what} holds {value} in row {at + row}{f' at {place}' if place else ''}.")


def _from_text(labels: Array, classes: tuple[str, ...], what: str) -> tuple[Array, tuple[str, ...]]:
    stripped = np.char.strip(labels)
    if len(empty := np.flatnonzero(stripped == "")):
        raise ConfigError(f"{what} hold an empty label in row {empty[0]}.")
    if not classes and all(re.fullmatch(r"[0-9]{1,6}", one) for one in np.unique(stripped)):
        return stripped.astype(np.int64), ()
    names, index_N = np.unique(stripped, return_inverse=True)
    if not classes:
        return index_N.astype(np.int64), tuple(str(name) for name in names)
    places = {name: number for number, name in enumerate(classes)}
    for name in names:
        if str(name) not in places:
            row = int(np.flatnonzero(stripped == name)[0])
            raise ConfigError(f"{what} hold label {str(name)!r} in row {row}. The classes are {some(classes)}.")
    return np.array([places[str(name)] for name in names], np.int64)[index_N], classes
