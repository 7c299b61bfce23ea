"""Does a criterion tell where leaving is right?

A score that ranks rows well lets many leave early at little cost, whatever its scale: calibrated probabilities are
neither needed nor enough (Kubaty et al., "Failure Prediction Is a Better Performance Proxy for Early-Exit Networks
Than Calibration", 2025). Two questions are asked of each early exit, both answered by the area under the ROC curve:
the probability that a row of the first kind gets a surer score than one of the second, 0.5 for guessing.

- right: is this exit's answer right, or wrong?
- leave: is nothing gained by going on (right here, or right at no later exit), or is the answer wrong here and right
  later? Only the second kind of row is worth the rest of the way.

Tensor names carry their axes: N rows of a split, E exits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from calibration.intervals import bootstrap
from common.types import Array


def auroc(surety_N: Array, positive_N: Array) -> float:
    """Area under the ROC curve (Mann-Whitney): ties count half. NaN where one kind of rows is missing."""
    positives = int(positive_N.sum())
    negatives = len(positive_N) - positives
    if not positives or not negatives:
        return float("nan")
    _, kind_N, count_K = np.unique(surety_N, return_inverse=True, return_counts=True)
    rank_K = np.cumsum(count_K) - (count_K - 1) / 2.0  # mean rank, from 1
    ranks = float(rank_K[kind_N][positive_N].sum())
    return (ranks - positives * (positives + 1) / 2.0) / (positives * negatives)


def nothing_gained(right_EN: Array, exit: int) -> Array:
    """Rows that lose nothing when they leave at an exit: right here, or right at no later exit, [N] bool."""
    result: Array = right_EN[exit] | ~right_EN[exit + 1 :].any(axis=0)
    return result


def foresight(surety_N: Array, right_EN: Array, exit: int) -> dict[str, Any]:
    """How well an early exit's score answers both questions.

    Args:
        surety_N: the criterion's score at the exit, higher where it is surer.
        right_EN: where every exit is right, bool.
        exit: which one.

    Returns:
        `right` and `leave`, each with `auroc` and its 95 % `interval`, or null where all rows are of one
        kind or the criterion has no score at this exit.
    """
    kinds = {"right": right_EN[exit], "leave": nothing_gained(right_EN, exit)}
    return {name: _measured(surety_N, positive_N) for name, positive_N in kinds.items()}


def _measured(surety_N: Array, positive_N: Array) -> dict[str, Any] | None:
    found = auroc(surety_N, positive_N)
    if np.isnan(found) or np.isnan(surety_N).any():
        return None
    interval = bootstrap(lambda drawn_N: auroc(surety_N[drawn_N], positive_N[drawn_N]), len(surety_N))
    return {"auroc": found, "interval": interval.document()}
