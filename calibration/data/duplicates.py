"""Rows that hold the same bytes in every input tensor."""

from __future__ import annotations

import numpy as np

from calibration.data.examples import Examples
from common.errors import ConfigError


def shared_rows(train: Examples, test: Examples) -> list[tuple[int, int]]:
    """Pairs (train row, test row) that hold the same bytes: for every such train row the first test row."""
    first: dict[bytes, int] = {}
    for row, key in enumerate(test.hashes_N):
        first.setdefault(key.tobytes(), row)
    keys = (key.tobytes() for key in train.hashes_N)
    return [(row, first[key]) for row, key in enumerate(keys) if key in first]


def without_shared(train: Examples, test: Examples, what: str) -> Examples:
    """The train rows that the test rows do not hold.

    Raises:
        ConfigError: when none is left.
    """
    shared = [row for row, _ in shared_rows(train, test)]
    if not shared:
        return train
    if len(shared) == len(train):
        raise ConfigError(f"{what}: every train row is a test row as well, so none is left to train on.")
    return train.take(np.delete(np.arange(len(train)), shared))


def refuse_shared(train: Examples, test: Examples, what: str) -> None:
    """ConfigError when a train row is a test row as well, naming the first pair and how many there are."""
    shared = shared_rows(train, test)
    if shared:
        row, twin = shared[0]
        raise ConfigError(
            f"{what}: {_rows(len(shared))} equal to a test row, train row {row} to test row {twin} first. "
            "data.duplicates: drop leaves such rows out of training."
        )


def _rows(count: int) -> str:
    return "1 train row is" if count == 1 else f"{count} train rows are"
