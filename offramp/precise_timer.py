"""Waking at a given moment more exactly than an event loop does.

Event loops round their timers up to whole milliseconds, as long as a small network takes to answer. On Linux a
timerfd, a timer that is read like a file, wakes within some ten microseconds; elsewhere the loop's timer serves.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000


class _Spec(ctypes.Structure):
    """struct itimerspec: repeat every, and first after, in seconds and nanoseconds."""

    _fields_ = (("every_s", ctypes.c_long), ("every_ns", ctypes.c_long), ("s", ctypes.c_long), ("ns", ctypes.c_long))


class PreciseTimer:
    """Sleeps until moments of time.monotonic(), one sleeper at a time; close it afterwards."""

    def __init__(self) -> None:
        self._fd = -1
        self._wake: asyncio.Future[None] | None = None
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._fired)

    async def until(self, moment: float) -> None:
        """Return at `moment`, or in the next turn of the loop when it has passed."""
        left = moment - time.monotonic()
        if left <= 0 or self._fd < 0:
            await asyncio.sleep(max(left, 0.0))
            return
        seconds, fraction = divmod(left, 1.0)
        spec = _Spec(0, 0, int(seconds), max(int(fraction * 1e9), 1))
        self._wake = asyncio.get_running_loop().create_future()
        self._libc.timerfd_settime(self._fd, 0, ctypes.byref(spec), None)
        await self._wake

    def close(self) -> None:
        """Give the timer back."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _fired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set anew meanwhile
            return
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
