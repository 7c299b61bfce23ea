"""A directory that appears at its place only once it is complete.

Until then it lies in a hidden folder beside it, which is locked while its process lives. What a killed process has left
there is cleared by whoever makes the same directory next: the kernel drops the lock however a process ends.
"""

from __future__ import annotations

import fcntl
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.bundle import MANIFEST
from common.errors import ConfigError
from common.leftovers import left_behind

_NEW, _OLD = "new", "old"  # in the hidden folder: what is made, and what lay at its place until it was complete


@contextmanager
def placed(out: Path) -> Iterator[Path]:
    """Give a new directory beside `out`, and move it to `out` when the block ends well.

    A bundle or an empty directory at `out` is replaced; when the block fails, `out` is as it was.

    Raises:
        ConfigError: when something else lies at `out`, or the place cannot be written.
    """
    out = out.absolute()
    _clear_leftovers(out)
    if out.exists() and not (out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir()))):
        raise ConfigError(f"{out} exists and is not a bundle. Choose another --out, or remove it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}.") from None
    lock = os.open(work, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: then nobody clears up either
            fcntl.flock(lock, fcntl.LOCK_EX)
        fresh, old = work / _NEW, work / _OLD
        fresh.mkdir()
        yield fresh
        if out.exists():
            out.rename(old)
        try:
            fresh.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


def _clear_leftovers(out: Path) -> None:
    """Remove the hidden folders of processes that were killed; what they had taken from `out` goes back there."""
    ours = re.compile(rf"\.{re.escape(out.name)}-[a-z0-9_]{{8}}")  # as `tempfile` names them
    for folder in out.parent.glob(f".{glob.escape(out.name)}-*"):
        if not ours.fullmatch(folder.name):
            continue
        with suppress(OSError), left_behind(folder) as held:  # its process lives, or it is gone by now
            inside = set(os.listdir(held))
            if not inside or not inside <= {_NEW, _OLD}:  # of a process that has yet to lock it, or nobody of ours
                continue
            if _OLD in inside and not out.exists():
                (folder / _OLD).rename(out)
            shutil.rmtree(folder, ignore_errors=True)
