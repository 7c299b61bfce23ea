"""Keep other packages' advice about their own internals out of the way while they work."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hushed(logger: str | None = None) -> Iterator[None]:
    """No warnings, and of a logger (None: the root) only errors, until the block ends."""
    told = logging.getLogger(logger)
    level = told.level
    told.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        told.setLevel(level)
