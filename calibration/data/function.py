"""Rows from a user's own function, `dataset: ./my_data.py:load`.

The function returns arrays by name, as an `.npz` file holds them, or `(train, test)` where each of both is
`(inputs, labels)`, `(inputs, labels, groups)` or arrays by name. Inputs are one array or several by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from calibration.data.checks import plain_array
from calibration.data.examples import Examples
from calibration.data.rows import Given, agreeing, checked_examples, distinct, examples_of, rows_of
from calibration.settings import DataSettings
from calibration.user_code import called, function_in, load_module
from common.errors import ConfigError
from common.types import Array

_FORMS = "It must return arrays by name with the labels among them, or (train, test) with (inputs, labels) each"


def is_function(name: str) -> bool:
    """Whether a data set's name means a function in a file."""
    return ".py:" in name


def read_function(path: Path, name: str, settings: DataSettings) -> Given:
    """Call a function and look at what it returns.

    Args:
        path: of its file.
        name: of the function.
        settings: the recipe's data section; its options are the function's keyword arguments.

    Raises:
        ConfigError: naming what is wrong; for an error inside the function, with file and line.
    """
    what = f"{path.name}:{name}"
    function = function_in(load_module(path), path, name)
    given = _given(called(function, path, what, settings.options), settings, what)
    test = None if given.test is None else _hashed(given.test, what)
    return Given(train=_hashed(given.train, what), test=test)


def _given(made: Any, settings: DataSettings, what: str) -> Given:
    classes: tuple[str, ...] = ()
    if isinstance(made, Mapping) and "train" in made:
        if unknown := set(made) - {"train", "test", "classes"}:
            raise ConfigError(f"{what} returns {sorted(map(str, unknown))[0]!r} beside train, test and classes.")
        classes = _class_names(made.get("classes", ()), what)
        made = (made["train"], made["test"]) if made.get("test") is not None else (made["train"],)
    elif isinstance(made, Mapping):
        return rows_of(_arrays(made, what), settings, what)
    elif isinstance(made, tuple | list) and len(made) >= 2 and not _is_split(made[0], made[1]):
        made = (made,)  # (inputs, labels) or (inputs, labels, groups): test rows are set aside
    if not isinstance(made, tuple | list) or not 1 <= len(made) <= 2:
        raise ConfigError(f"{what} returns {_described(made)}. {_FORMS}.")
    train = _split(made[0], settings, classes, f"{what}, train rows" if len(made) == 2 else what)
    if len(made) == 1:
        return Given(train=train)
    where = f"{what}, test rows"
    return Given(train=train, test=agreeing(train, _split(made[1], settings, train.classes, where), where))


def _class_names(given: Any, what: str) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigError(f"{what} returns {given!r} as classes. It must return a list of names.")
    return distinct(tuple(map(str, given)), f"{what}: classes")


def _is_split(first: Any, second: Any) -> bool:
    """Whether two values are train and test rows, and not inputs and labels."""
    return isinstance(first, tuple | list | Mapping) and isinstance(second, tuple | Mapping)


def _split(made: Any, settings: DataSettings, classes: tuple[str, ...], what: str) -> Examples:
    if isinstance(made, Mapping):
        return examples_of(_arrays(made, what), settings, classes, what)
    if not isinstance(made, Sequence) or isinstance(made, str | bytes) or not 2 <= len(made) <= 3:
        raise ConfigError(f"{what}: the function returns {_described(made)}. {_FORMS}.")
    inputs, labels, *rest = made
    if not isinstance(inputs, Mapping):
        if settings.input is not None and len(settings.input) != 1:
            raise ConfigError(f"data.input names {len(settings.input)} inputs. {what} has one.")
        inputs = {settings.input[0] if settings.input else "x": inputs}
    groups = plain_array(rest[0], f"{what}: the groups") if rest and rest[0] is not None else None
    if groups is None and settings.group is not None:
        raise ConfigError(f"data.group is {settings.group!r}. {what} returns no groups beside inputs and labels.")
    return checked_examples(_arrays(inputs, what), plain_array(labels, f"{what}: the labels"), groups, classes, what)


def _arrays(made: Mapping[Any, Any], what: str) -> dict[str, Array]:
    for name in made:
        if not isinstance(name, str):
            raise ConfigError(f"{what}: {name!r} names an array. It must be text.")
    return {name: plain_array(value, f"{what}: {name}") for name, value in made.items()}


def _described(made: Any) -> str:
    if isinstance(made, tuple | list):
        return f"{type(made).__name__} of {len(made)}"
    return "nothing" if made is None else f"a {type(made).__name__}"


def _hashed(examples: Examples, name: str) -> Examples:
    """With a checksum of all values, so that a function that returns other rows later is noticed."""
    digest = hashlib.sha256()
    for key in sorted(examples.inputs):
        array = examples.inputs[key]
        digest.update(f"{key} {array.dtype} {array.shape}\n".encode())
    digest.update(examples.hashes_N.tobytes())
    digest.update(examples.labels_N.tobytes())
    return replace(examples, sha256={name: digest.hexdigest()})
