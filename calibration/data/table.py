"""Rows in a text table, `.csv` or `.tsv`: a line of column names, then one example per line."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calibration.data.checks import some
from calibration.data.files import content
from calibration.data.rows import GROUPS, LABELS
from calibration.settings import DataSettings
from common.errors import ConfigError
from common.types import Array


def read_table(path: Path, settings: DataSettings) -> dict[str, Array]:
    """Arrays by name: the features as one tensor, the labels under "labels", and "group" and "split" if there.

    Args:
        path: the file, UTF-8; values are separated by commas, semicolons or tabs, as its first line shows.
        settings: says which column is the label (else one that is called so), name (else "x"), type (else float32)
            and shape of the tensor.

    Raises:
        ConfigError: naming the line and the column.
    """
    header, lines = _lines(path)
    columns = {name: place for place, name in enumerate(header)}
    for name in settings.ignore:
        _place(columns, name, "data.ignore", path)
    label = _label(columns, settings, path)
    group = settings.group or next((name for name in GROUPS if name in columns), None)
    if group is not None:
        _place(columns, group, "data.group", path)
    split = "split" if "split" in columns and label != "split" else None
    apart = {label, group, split, *settings.ignore}
    features = [place for name, place in columns.items() if name not in apart]
    if not features:
        raise ConfigError(f"{path} has no column beside {', '.join(sorted(name for name in apart if name))}.")
    name = _input_name(settings)
    found = {name: _tensor(path, header, lines, features, settings), "labels": _column(lines, columns[label])}
    if group is not None:
        found["group"] = _column(lines, columns[group])
    if split is not None:
        found["split"] = _column(lines, columns[split])
    return found


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Column names, and every line with its number."""
    try:
        text = content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#x}.") from None
    head = text.partition("\n")[0]
    delimiter = max("\t;,", key=lambda one: (head.count(one), one == ","))
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        lines = [(reader.line_num, line) for line in reader if any(value.strip() for value in line)]
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: {error}.") from None
    if len(lines) < 2:
        raise ConfigError(f"{path} holds no rows. It must have a line of column names, then one line per row.")
    header = [name.strip() for name in lines[0][1]]
    for name in header:
        if not name or header.count(name) > 1:
            raise ConfigError(f"{path}: the first line names a column {name!r} {'twice' if name else 'with no name'}.")
    if all(_is_number(name) for name in header):
        raise ConfigError(f"{path}: the first line holds numbers. It must name the columns.")
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise ConfigError(
                f"{path}, line {number} has {len(line)} values. The first line names {len(header)} columns."
            )
    return header, lines[1:]


def _label(columns: dict[str, int], settings: DataSettings, path: Path) -> str:
    if settings.label is not None:
        _place(columns, settings.label, "data.label", path)
        return settings.label
    for name in columns:
        if name.lower() in LABELS:
            return name
    raise ConfigError(
        f"{path} has no column called {', '.join(LABELS[:-1])} or {LABELS[-1]}. data.label names the column of labels; "
        f"there are {some(columns)}."
    )


def _place(columns: dict[str, int], name: str, key: str, path: Path) -> int:
    if name not in columns:
        raise ConfigError(f"{key} names the column {name!r}. {path} has {some(columns)}.")
    return columns[name]


def _input_name(settings: DataSettings) -> str:
    if settings.input is None:
        return "x"
    if len(settings.input) != 1:
        raise ConfigError(f"data.input has {len(settings.input)} names. The columns of a table become one tensor.")
    return settings.input[0]


def _column(lines: Sequence[tuple[int, list[str]]], place: int) -> Array:
    return np.array([line[place].strip() for _, line in lines])


def _tensor(
    path: Path,
    header: Sequence[str],
    lines: Sequence[tuple[int, list[str]]],
    places: Sequence[int],
    settings: DataSettings,
) -> Array:
    values = np.empty((len(lines), len(places)), np.float64)
    for row, (number, line) in enumerate(lines):
        try:
            values[row] = [float(line[place]) for place in places]
        except ValueError:
            place = next(place for place in places if not _is_number(line[place]))
            held = repr(line[place].strip()) if line[place].strip() else "nothing"
            raise ConfigError(
                f"{path}, line {number}: column {header[place]!r} holds {held}. It must be a number, or the column be "
                "named in data.ignore, data.label or data.group."
            ) from None
    if not (good := np.isfinite(values)).all():
        row, column = (int(i) for i in np.argwhere(~good)[0])
        place = places[column]
        raise ConfigError(
            f"{path}, line {lines[row][0]}: column {header[place]!r} holds {lines[row][1][place].strip()}."
        )
    return _shaped(_typed(path, values, settings.dtype or "float32"), settings, path)


def _typed(path: Path, values: Array, dtype: str) -> Array:
    if dtype != "float32":
        limits = np.iinfo(dtype)
        wrong = (values != np.floor(values)) | (values < limits.min) | (values > limits.max)
        if wrong.any():
            raise ConfigError(f"{path} holds {values[wrong][0]:g}, which is no {dtype}. data.dtype is {dtype}.")
    return values.astype(dtype)


def _shaped(values: Array, settings: DataSettings, path: Path) -> Array:
    if settings.shape is None:
        return values
    if min(settings.shape, default=0) < 1 or math.prod(settings.shape) != values.shape[1]:
        raise ConfigError(f"data.shape is {settings.shape}. {path} has {values.shape[1]} columns of features.")
    return values.reshape(len(values), *settings.shape)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
