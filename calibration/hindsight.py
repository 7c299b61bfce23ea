"""What the labels show afterwards: overthinking, and the best that any choice of exits could have done.

A network overthinks a row that an early exit answers rightly. Going on is then wasted where the last exit says the
same, and destructive where it is wrong (Kaya et al., "Shallow-Deep Networks: Understanding and Mitigating Network
Overthinking", 2019). An oracle would leave at the earliest exit that is right; no criterion can beat it.

Tensor names carry their axes: N rows of a split, E exits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from calibration.intervals import share_interval
from common.types import Array


def overthinking(right_EN: Array) -> dict[str, Any]:
    """Shares of all rows.

    Args:
        right_EN: where every exit is right, bool.

    Returns:
        `wasted` (an early exit is right, and so is the last) and `destructive` (an early exit is right, the last is
        wrong), each with `share` and its 95 % `interval`; `exits`: both shares per early exit, counting its answers
        alone.
    """
    last_N, early_N = right_EN[-1], right_EN[:-1].any(axis=0)
    return {
        "wasted": _share(early_N & last_N),
        "destructive": _share(early_N & ~last_N),
        "exits": [
            {
                "exit": number,
                "wasted": float((right_N & last_N).mean()),
                "destructive": float((right_N & ~last_N).mean()),
            }
            for number, right_N in enumerate(right_EN[:-1])
        ],
    }


def oracle(right_EN: Array, flops_E: Array) -> dict[str, Any]:
    """The earliest exit that is right; rows that no exit gets right leave at the first, where they cost least.

    Args:
        right_EN: where every exit is right, bool.
        flops_E: of a row that leaves at each exit.
    """
    taken_N = right_EN.argmax(axis=0)
    right_N = right_EN[taken_N, np.arange(len(taken_N))]
    rates = np.bincount(taken_N, minlength=len(flops_E)) / len(taken_N)
    return {
        "accuracy": float(right_N.mean()),
        "accuracy_interval": share_interval(int(right_N.sum()), len(right_N)).document(),
        "exit_rates": rates.tolist(),
        "mean_flops": float(flops_E[taken_N].mean()),
    }


def at_random(right_EN: Array, exit_rates: list[float]) -> float:
    """Accuracy, in the mean over all draws, when rows leave at the same rates but are drawn by lot."""
    return float(np.dot(exit_rates, right_EN.mean(axis=1)))


def _share(rows_N: Array) -> dict[str, Any]:
    return {
        "share": float(rows_N.mean()),
        "interval": share_interval(int(rows_N.sum()), len(rows_N)).document(),
    }
