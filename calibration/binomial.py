"""Exact tests and limits for a probability, from how often something happened in independent trials.

The limits are those of Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case
of the binomial" (Biometrika 26, 1934): the upper limit at level delta is the p at which seeing `count` or fewer
has probability delta. A test and a limit say the same: the limit is at most epsilon exactly when the
probability of `count` or fewer under p = epsilon is at most delta.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from common.types import Array


def at_most(count: int, rows: int, p: float) -> float:
    """P(X <= count) for X binomial with `rows` trials of probability p.

    All terms are positive and are summed from their logarithms, so nothing cancels: the relative error stays
    near 1e-15 times `count`, however small the result.
    """
    _check(count, rows)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"The probability is {p}. It must lie between 0 and 1.")
    if count == rows or p == 0.0:
        return 1.0
    if p == 1.0:
        return 0.0
    return _tail(_log_choose(count, rows), rows, p)


@lru_cache(maxsize=4096)
def upper_limit(count: int, rows: int, delta: float) -> float:
    """One-sided upper limit: the true probability exceeds it with probability at most delta.

    Args:
        count: how often it happened.
        rows: independent trials; without any the limit is 1.
        delta: between 0 and 1, both excluded.

    Raises:
        ValueError: when count is not between 0 and rows, or delta is out of range.
    """
    _check(count, rows)
    _check_level(delta)
    if count == rows:
        return 1.0
    if count == 0:
        return smallest_epsilon(rows, delta)
    log_choose = _log_choose(count, rows)
    low, high = count / rows, 1.0
    while high - low > 1e-13 * high:
        middle = (low + high) / 2.0
        if _tail(log_choose, rows, middle) <= delta:
            high = middle
        else:
            low = middle
    return high  # the end on the safe side


def lower_limit(count: int, rows: int, delta: float) -> float:
    """One-sided lower limit: the true probability is below it with probability at most delta."""
    return 1.0 - upper_limit(rows - count, rows, delta)


@lru_cache(maxsize=4096)
def most_losses(rows: int, epsilon: float, delta: float) -> int:
    """The largest count whose upper limit is at most epsilon; -1 when not even 0 will do."""
    _check(0, rows)
    _check_level(delta)
    if not 0.0 <= epsilon < 1.0:
        raise ValueError(f"Epsilon is {epsilon}. It must be at least 0 and below 1.")
    low, high = -1, rows  # `low` passes, `high` does not: at_most(rows) is 1
    while high - low > 1:
        middle = (low + high) // 2
        if at_most(middle, rows, epsilon) <= delta:
            low = middle
        else:
            high = middle
    return low


def smallest_epsilon(rows: int, delta: float) -> float:
    """The upper limit of a probability when nothing happened: 1 - delta^(1/rows), about ln(1/delta)/rows."""
    _check(0, rows)
    _check_level(delta)
    return 1.0 if rows == 0 else -math.expm1(math.log(delta) / rows)


def _log_choose(count: int, rows: int) -> Array:
    """Logarithms of "rows choose j" for j = 0, ..., count."""
    j = np.arange(1.0, count + 1.0)
    return np.concatenate([[0.0], np.cumsum(np.log((rows - j + 1.0) / j))])


def _tail(log_choose: Array, rows: int, p: float) -> float:
    """Sum of the terms of a binomial law, 0 < p < 1."""
    j = np.arange(float(len(log_choose)))
    log_terms = log_choose + j * math.log(p) + (rows - j) * math.log1p(-p)
    highest = float(log_terms.max())
    return min(1.0, math.exp(highest) * float(np.exp(log_terms - highest).sum()))


def _check(count: int, rows: int) -> None:
    if rows < 0 or not 0 <= count <= rows:
        raise ValueError(f"{count} of {rows} rows is not a count. It must lie between 0 and the number of rows.")


def _check_level(delta: float) -> None:
    if not 0.0 < delta < 1.0:
        raise ValueError(f"Delta is {delta}. It must lie between 0 and 1, both excluded.")
