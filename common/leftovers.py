"""Folders that a process held by a lock and left behind: the kernel drops the lock however a process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def left_behind(folder: Path) -> Iterator[int]:
    """A folder whose process is gone, opened and locked.

    Raises:
        OSError: when there is no such folder, or its process lives.
    """
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield held
    finally:
        os.close(held)
