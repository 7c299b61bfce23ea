"""What a caller may ask for beside the inputs: read from JSON values, or from the texts of queries and forms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

import orjson

from common.errors import Unprocessable

MAX_TIMEOUT_MS = 3_600_000  # an hour
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a request is to be answered."""

    timeout_ms: float | None = None  # from the moment the body is there
    operating_point: str | None = None  # None: the tier's default
    probabilities: bool = False
    forward: bool = True  # False: never leaves this tier


DEFAULTS = Options()


def options_from_json(values: Mapping[str, object]) -> Options:
    """Read options out of a JSON object that holds nothing else.

    Raises:
        Unprocessable: an unknown key, or a value that is not allowed.
    """
    return Options(**{key: _reader(key)(key, value) for key, value in values.items()})  # type: ignore[arg-type]


def options_from_query(query: bytes) -> dict[str, object]:
    """The options of a query string, checked; empty when there is none.

    Raises:
        Unprocessable: an unknown or repeated parameter, or a value that is not allowed.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=16)
    except ValueError:
        raise Unprocessable("The query string has too many parameters.", "bad_option") from None
    options: dict[str, object] = {}
    for key, text in pairs:
        add_text(options, key, text)
    return options


def add_text(options: dict[str, object], key: str, text: str) -> None:
    """Read one option out of a text and put it to the others.

    Raises:
        Unprocessable: an unknown or repeated option, or a value that is not allowed.
    """
    reader = _reader(key)
    if key in options:
        raise Unprocessable(f"{key} is given more than once.", "bad_option")
    value: object = text
    if key != "operating_point":
        value = {"true": True, "false": False}.get(text, text)
    if key == "timeout_ms" and _NUMBER.fullmatch(text):
        value = float(text)
    options[key] = reader(key, value)


def described(value: object) -> str:
    """A JSON value as messages show it, short whatever it is."""
    match value:
        case list():
            return "a list"
        case dict():
            return "an object"
        case str() if len(value) > 40:
            return orjson.dumps(value[:40]).decode()[:-1] + '..."'
        case None | str() | bool() | int() | float():
            try:
                return orjson.dumps(value).decode()
            except orjson.JSONEncodeError:  # half of a surrogate pair, or beyond 64 bits
                return ascii(value)
        case _:
            return type(value).__name__


def _reader(key: str) -> Callable[[str, object], object]:
    reader = _READERS.get(key)
    if reader is None:
        raise Unprocessable(
            f"{described(key)} is not a known key. The keys are inputs, {', '.join(_READERS)}.", "unknown_key"
        )
    return reader


def _timeout(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_TIMEOUT_MS:
        raise Unprocessable(
            f"{key} is {described(value)}. It must be a number of milliseconds above 0, at most {MAX_TIMEOUT_MS}.",
            "bad_option",
        )
    return float(value)


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise Unprocessable(f"{key} is {described(value)}. It must be a string.", "bad_option")
    return value


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise Unprocessable(f"{key} is {described(value)}. It must be true or false.", "bad_option")
    return value


_READERS: dict[str, Callable[[str, object], object]] = {
    "timeout_ms": _timeout,
    "operating_point": _text,
    "probabilities": _flag,
    "forward": _flag,
}
