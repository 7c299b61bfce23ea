"""Taking checked values out of one mapping of a configuration file.

A kind is a function that returns the value in its right type, or raises ValueError with the end of a
sentence that starts with "It": "must be a whole number from 1 to 256".
"""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

from common.errors import ConfigError

T = TypeVar("T")


class Section:
    """Takes known keys out of a mapping; `done` refuses what is left, naming the nearest known key.

    Args:
        values: the mapping.
        path: its file, for messages.
        where: its place in the file, such as "tiers.edge"; empty at the top.
        reserved: keys that are refused because a later version will give them a meaning.
    """

    def __init__(
        self, values: Mapping[object, object], path: Path, where: str, *, reserved: Collection[str] = ()
    ) -> None:
        self._left = dict(values)
        self._path = path
        self._where = where
        self._known: list[str] = []
        for key in reserved:
            if key in values:
                raise ConfigError(f"{path}: {self._at(key)} is reserved for a later version. Remove it.")

    def _at(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def take(self, key: str, kind: Callable[[object], T], *default: T) -> T:
        """The value of `key`, or the default; raises ConfigError when it is missing or wrong."""
        self._known.append(key)
        if key not in self._left:
            if default:
                return default[0]
            near = difflib.get_close_matches(key, [str(other) for other in self._left], n=1)
            hint = f" The nearest key there is {near[0]!r}." if near else ""
            raise ConfigError(f"{self._path}: {self._at(key)} is missing.{hint}")
        value = self._left.pop(key)
        try:
            return kind(value)
        except ValueError as error:
            raise ConfigError(f"{self._path}: {self._at(key)} is {shown(value)}. It {error}.") from None

    def done(self) -> None:
        """Raise ConfigError when a key was not taken."""
        for key in self._left:
            name = key if isinstance(key, str) and key.isprintable() else repr(key)
            raise ConfigError(
                f"{self._path}: {self._at(name[:80])} is not a known key.{nearest(str(key), self._known, 'key')}"
            )


def nearest(word: str, words: Collection[str], noun: str) -> str:
    """A sentence that names the valid word nearest to a wrong one; empty when there is none."""
    near = difflib.get_close_matches(word[:80], list(words), n=1, cutoff=0.0)
    return f" The nearest {noun} is {near[0]!r}." if near else ""


def shown(value: object) -> str:
    """A value as a message shows it, cut short."""
    return repr(value) if isinstance(value, str) and len(value) <= 80 else reprlib.repr(value)


def text(value: object) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be text")
    return value


def mapping(value: object) -> dict[object, object]:
    """A mapping."""
    if not isinstance(value, dict):
        raise ValueError("must be a mapping")
    return value


def whole(low: int, high: int) -> Callable[[object], int]:
    """A whole number in a range."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return read


def number(low: float, high: float) -> Callable[[object], float]:
    """A number in a range."""

    def read(value: object) -> float:
        right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not right or not low <= float(value) <= high:  # type: ignore[arg-type]
            raise ValueError(f"must be a number from {low} to {high}")
        return float(value)  # type: ignore[arg-type]

    return read
