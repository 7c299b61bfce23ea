"""A folder for this process's own sockets, gone when the process is, or else when the next one makes its own.

A process that is killed cannot clean up. So each folder is locked while its process lives, and one without a lock is
a leftover. The kernel drops the lock however a process ends, and shows it to every container that shares the place.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from common.leftovers import left_behind

_PREFIX = "offramp-sockets-"
_UNLOCKED = "new-offramp-sockets-"


class PrivateFolder:
    """A new folder for this user alone, among the system's temporary files.

    Raises:
        OSError: when none can be made.
    """

    def __init__(self) -> None:
        place = Path(tempfile.gettempdir())
        for folder in place.glob(f"{_PREFIX}*"):
            _remove_leftover(folder)
        new = Path(tempfile.mkdtemp(prefix=_UNLOCKED, dir=place))
        self._lock = os.open(new, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = new.rename(place / new.name.replace(_UNLOCKED, _PREFIX))  # nobody saw it without its lock

    def remove(self) -> None:
        """Remove it with its sockets."""
        if self._lock >= 0:
            _remove(self.path)
            os.close(self._lock)
            self._lock = -1


def _remove_leftover(folder: Path) -> None:
    """Remove a folder of this user's that nobody holds."""
    with suppress(OSError), left_behind(folder) as held:  # its process lives, or it is gone by now
        if os.fstat(held).st_uid == os.getuid():
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder that holds nothing but sockets; leave any other as it is, but for them."""
    try:
        for entry in folder.iterdir():
            if entry.is_socket():
                entry.unlink()
        folder.rmdir()
    except OSError:
        pass
