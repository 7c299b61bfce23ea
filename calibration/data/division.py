"""Divide rows into splits, so that rows that belong together stay together.

Rows with equal bytes, and rows of one group, form a unit, and a unit lies in one split. Where every row is a unit of
its own, the division is a permutation of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from calibration.data.examples import Examples
from common.errors import ConfigError
from common.types import Array


def units_of(examples: Examples) -> Array:
    """The unit of every row, [N], numbered by first appearance."""
    keys_N = _numbered(examples.hashes_N)
    if examples.groups_N is None:
        return keys_N
    return _joined(keys_N, _numbered(examples.groups_N))


def divided(units_N: Array, sizes: Mapping[str, int], random: np.random.Generator, what: str) -> dict[str, Array]:
    """Rows of every split, sorted; what is in no split is under "rest".

    Args:
        units_N: the unit of every row.
        sizes: rows wanted per split, drawn in this order; with units of several rows, as near to it as they allow.
        random: draws.
        what: names the rows in messages.

    Raises:
        ConfigError: when a split or the rest would be empty.
    """
    count = int(units_N.max()) + 1 if len(units_N) else 0
    if sum(sizes.values()) >= len(units_N):
        *names, last = sizes
        said = f"{', '.join(names)} and {last} ask" if names else f"{last} asks"
        raise ConfigError(
            f"data: {said} for {sum(sizes.values())} rows. "
            f"{what} has {len(units_N)}, and some must be left to train on."
        )
    if count == len(units_N):
        parts = np.split(random.permutation(count), np.cumsum(list(sizes.values())))
        return {name: np.sort(part) for name, part in zip([*sizes, "rest"], parts, strict=True)}
    rows_of = np.split(np.argsort(units_N, kind="stable"), np.cumsum(np.bincount(units_N))[:-1])
    free = list(random.permutation(count))
    found: dict[str, Array] = {}
    for name, size in sizes.items():
        taken, free = _taken([len(rows_of[unit]) for unit in free], size, free)
        if not taken:
            raise ConfigError(_too_few(name, size, count, what))
        found[name] = np.sort(np.concatenate([rows_of[unit] for unit in taken]))
    if not free:
        raise ConfigError(_too_few("train", 1, count, what))
    return {**found, "rest": np.sort(np.concatenate([rows_of[unit] for unit in free]))}


def as_rows(name: str, size: int | float, rows: int, what: str) -> int:
    """A size, which may be a share, as a number of rows.

    Raises:
        ConfigError: when the share is less than a row.
    """
    found = size if isinstance(size, int) else round(size * rows)
    if found < 1:
        raise ConfigError(f"data.{name} is {size}. Of the {rows} rows of {what} that is not one.")
    return found


def _taken(sizes: list[int], wanted: int, units: list[int]) -> tuple[list[int], list[int]]:
    """Units in order, each taken when that brings the sum nearer to what is wanted; and those left."""
    taken, left, missing = [], [], wanted
    for size, unit in zip(sizes, units, strict=True):
        if missing > 0 and abs(missing - size) < missing:
            taken.append(unit)
            missing -= size
        else:
            left.append(unit)
    return taken, left


def _too_few(name: str, size: int, count: int, what: str) -> str:
    return (
        f"data: {what} has {count} groups of rows that belong together (data.group, or equal rows), too few "
        f"for {name}, which asks for {size} rows."
    )


def _numbered(values_N: Array) -> Array:
    """Equal values get equal numbers, by first appearance."""
    numbers: dict[object, int] = {}
    keys: list[object] = [value.tobytes() for value in values_N] if values_N.dtype.kind == "V" else values_N.tolist()
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _joined(first_N: Array, second_N: Array) -> Array:
    """Units of rows that are linked by either numbering, over any number of steps."""
    parent = list(range(int(second_N.max()) + 1))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    seen: dict[int, int] = {}
    for key, group in zip(first_N.tolist(), second_N.tolist(), strict=True):
        other = seen.setdefault(key, group)
        parent[root(group)] = root(other)
    return _numbered(np.array([root(group) for group in second_N.tolist()], np.int64))
