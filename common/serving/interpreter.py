"""How the interpreter of a tier's process is set once the tier has started."""

from __future__ import annotations

import gc
import sys

_SWITCH_S = 1e-4  # a runtime's thread that is back from a run waits so long for a busy event loop, not 5 ms


def settle() -> None:
    """Look for garbage seldom, and never again among what was loaded; let threads take turns quickly.

    Requests leave hardly any garbage in cycles. With the usual thresholds the collector runs every few requests, a
    tenth of a busy tier's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    sys.setswitchinterval(_SWITCH_S)
