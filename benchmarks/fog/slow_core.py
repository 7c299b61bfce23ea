"""Hold a core to a share of its speed: `python -m benchmarks.fog.slow_core CORE SHARE`.

A process of real-time priority takes the rest of every 4 ms, so that whatever else runs on the core sees one that is
slower by the share: a device with a small processor. Shorter cycles would cost the device its caches too often. (A
quota of the kernel's is no such thing: it lets a process that has been idle run at full speed for milliseconds, longer
than a small network takes, and then stops it.)
"""

from __future__ import annotations

import os
import sys
import time

_CYCLE_S = 4e-3
_PRIORITY = 10


def main() -> None:
    core, share = int(sys.argv[1]), float(sys.argv[2])
    parent = os.getppid()
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    clock = time.monotonic
    begin = clock()
    while os.getppid() == parent:
        end = begin + _CYCLE_S * (1 - share)
        while clock() < end:
            pass
        begin += _CYCLE_S
        left = begin - clock()
        if left > 0:
            time.sleep(left)
        else:  # it was stopped for a while
            begin = clock()


if __name__ == "__main__":
    main()
