"""Taking checked values out of `manifest.json`.

A kind is a function of a value and its place in the document; it returns the value in its right type or raises
BundleError with one sentence that names the place.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from common.errors import BundleError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

T = TypeVar("T")


class Reader:
    """Takes keys out of a JSON object, remembering where it is; `done` refuses what is left."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise BundleError(f"manifest.json: {where or 'the document'} must be an object.")
        self._left = dict(value)
        self._where = where

    def at(self, key: str) -> str:
        """The full name of a key, for messages."""
        return f"{self._where}.{key}" if self._where else key

    def take(self, key: str, kind: Callable[[object, str], T], *default: T) -> T:
        """The value of `key`, or the default; raises BundleError when it is missing or wrong."""
        if key not in self._left:
            if default:
                return default[0]
            raise BundleError(f"manifest.json: {self.at(key)} is missing.")
        return kind(self._left.pop(key), self.at(key))

    def done(self) -> None:
        """Raise BundleError when a key was not taken."""
        if self._left:
            key = sorted(self._left)[0]
            shown = key[:80] if key.isprintable() else ascii(key[:80])
            raise BundleError(f"manifest.json: {self.at(shown)} is not a known key.")


def wrong(where: str, expected: str, value: object) -> BundleError:
    """The error that names a place, what stands there, and what may."""
    shown = repr(value)
    return BundleError(f"manifest.json: {where} is {shown[:80]}. It must be {expected}.")


def text(value: object, where: str) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value:
        raise wrong(where, "a non-empty string", value)
    return value


def name(value: object, where: str) -> str:
    """A name."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise wrong(where, "a name of letters, digits, '.', '_' and '-'", value)
    return value


def one_of(*choices: str) -> Callable[[object, str], str]:
    """One of some strings."""

    def read(value: object, where: str) -> str:
        if value not in choices:
            raise wrong(where, f"one of {', '.join(choices)}", value)
        return str(value)

    return read


def count(value: object, where: str) -> int:
    """A whole number from 0 that a float can hold exactly."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**53:
        raise wrong(where, "a whole number from 0", value)
    return value


def number(value: object, where: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise wrong(where, "a finite number", value)
    return float(value)


def flag(value: object, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise wrong(where, "true or false", value)
    return value


def list_of(kind: Callable[[object, str], T]) -> Callable[[object, str], tuple[T, ...]]:
    """A list whose items are all of one kind."""

    def read(value: object, where: str) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise wrong(where, "a list", value)
        return tuple(kind(item, f"{where}[{i}]") for i, item in enumerate(value))

    return read


def or_null(kind: Callable[[object, str], T]) -> Callable[[object, str], T | None]:
    """A kind, or null."""
    return lambda value, where: None if value is None else kind(value, where)


def map_of(kind: Callable[[object, str], T]) -> Callable[[object, str], dict[str, T]]:
    """An object from names to one kind."""

    def read(value: object, where: str) -> dict[str, T]:
        if not isinstance(value, dict):
            raise wrong(where, "an object", value)
        return {name(key, where): kind(item, f"{where}.{key}") for key, item in value.items()}

    return read


def named(kind: Callable[[object, str, str], T]) -> Callable[[object, str], dict[str, T]]:
    """An object from names to a kind that is told its name."""

    def read(value: object, where: str) -> dict[str, T]:
        return {key: kind(item, f"{where}.{key}", key) for key, item in map_of(_as_is)(value, where).items()}

    return read


def free(value: object, where: str) -> dict[str, Any]:
    """An object with any keys."""
    if not isinstance(value, dict):
        raise wrong(where, "an object", value)
    return value


def size(value: object, where: str) -> int | str:
    """A size of a row shape: a whole number from 1, or a symbol."""
    return name(value, where) if isinstance(value, str) else positive(value, where)


def positive(value: object, where: str) -> int:
    """A whole number from 1."""
    if count(value, where) == 0:
        raise wrong(where, "a whole number from 1", value)
    return int(value)  # type: ignore[call-overload,no-any-return]


def _as_is(value: object, where: str) -> object:
    return value
