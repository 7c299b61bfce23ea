"""Where two processes that talk to each other run: on one core, or on a core each.

With one request in flight only one of them works at a time. On one core the kernel switches between them; on two
it has to wake the other core up, which in a virtual machine costs tens of microseconds, the same for everybody.
"""

from __future__ import annotations

import os
from collections.abc import Callable


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


PLACES: dict[str, Callable[[], tuple[set[int], set[int]]]] = {
    "one core": lambda: ({_cores()[0]}, {_cores()[0]}),
    "a core each": lambda: ({_cores()[-1]}, {_cores()[0]}),
}
