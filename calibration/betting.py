"""Tests and upper limits for the mean of losses between -1 and 1, by betting.

Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 86, 2024; arXiv
2010.09686), section 4: to test whether the mean mu of independent losses X_1, ..., X_n is at least m, start
with capital 1 and bet on small losses, row after row:

    W(m) = product over i of (1 + b (m - X_i)),   0 <= b <= c / (1 - m),   c = 0.999.

**The range.** X_i <= 1 is all that this one-sided game needs: then 1 + b (m - X_i) >= 1 - b (1 - m) >= 1 - c > 0.
How far losses reach below zero plays no part, so they enter as they are. Written for Y = (1 - X) / 2 in [0, 1]
the same game has the bet 2b, capped at 1 / (mean of Y): whoever rescales the losses but keeps the bet plays
another, weaker game. A loss above 1 would break the proof and is refused, and so is one below -1.

**Why it is valid.** The bet b is fixed before the first row is seen. If mu >= m, then
E[1 + b (m - X_i)] = 1 + b (m - mu) <= 1, and rows are independent: the capital after each row is a non-negative
supermartingale that starts at 1. So E[W(m)] <= 1, and by Markov's inequality P(W(m) >= 1/delta) <= delta.

**The limit.** The upper limit is the smallest m with W(m) >= 1/delta. Every factor rises with m: while b is not
capped its derivative is b >= 0; once b = c / (1 - m) the factor is 1 + c (m - X) / (1 - m), with derivative
c (1 - X) / (1 - m)^2 >= 0. So W rises with m, halving an interval finds the limit, and it exceeds epsilon
exactly when the test of epsilon does not reject. Every factor falls when its loss rises: raising any loss never
lowers the limit. The order of the rows plays no part. (Bets that follow the rows seen so far, the paper's
predictable plug-ins, have neither of the last two properties.)

**Which bet.** Any bet is valid; a good one wins. `tolerant_bet` picks the one that still wins with the most
losses of 1, given what may be known from other rows: how often losses are negative.
"""

from __future__ import annotations

import math

import numpy as np

from common.types import Array

_CAP = 0.999
_HALVINGS = 60
_BETS_TRIED = np.linspace(0.0, 1.0, 1001)[1:]


def check_losses(losses_N: Array) -> Array:
    """The losses as float64, [N], each between -1 and 1, else ValueError."""
    losses_N = np.asarray(losses_N, dtype=np.float64)
    if losses_N.size and not (losses_N.min() >= -1.0 and losses_N.max() <= 1.0):
        raise ValueError("Losses must lie between -1 and 1.")
    return losses_N


def log_growth(losses_N: Array, mean: float, bet: float) -> Array:
    """Logarithm of what each row multiplies the capital by in the game for `mean`, shaped like the losses.

    Args:
        losses_N: between -1 and 1, any shape.
        mean: m, from -1 to below 1.
        bet: b, at least 0, fixed without looking at these rows; capped at c / (1 - m).
    """
    _check_mean(mean)
    if not bet >= 0.0:
        raise ValueError(f"The bet is {bet}. It must be at least 0.")
    result: Array = np.log1p(min(bet, _CAP / (1.0 - mean)) * (mean - check_losses(losses_N)))
    return result


def log_wealth(losses_N: Array, mean: float, bet: float) -> float:
    """Logarithm of the capital after all rows; the test of "the mean is at least m" rejects from ln(1/delta)."""
    return float(log_growth(losses_N, mean, bet).sum())


def upper_limit(losses_N: Array, delta: float, bet: float) -> float:
    """One-sided upper limit: the true mean exceeds it with probability at most delta.

    Args:
        losses_N: independent losses of one distribution, between -1 and 1; without any the limit is 1.
        delta: between 0 and 1, both excluded.
        bet: fixed without looking at these rows.

    Returns:
        The limit, to 1e-12 and on the safe side; 1 when nothing less can be shown.
    """
    if not 0.0 < delta < 1.0:
        raise ValueError(f"Delta is {delta}. It must lie between 0 and 1, both excluded.")
    values_V, counts_V = np.unique(check_losses(losses_N), return_counts=True)
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        if high - low <= 1e-12:
            break
        middle = (low + high) / 2.0
        if float((counts_V * log_growth(values_V, middle, bet)).sum()) >= math.log(1.0 / delta):
            high = middle
        else:
            low = middle
    return high


def tolerant_bet(rows: int, mean: float, delta: float, gains: float = 0.0) -> float:
    """The bet whose test of `mean` rejects in spite of the most losses of 1 among so many rows.

    With g = rows * gains losses of -1 expected and all others 0, the bet b bears s losses of 1 as long as
    (rows - g - s) ln(1 + bm) + s ln(1 - b(1 - m)) + g ln(1 + b(1 + m)) >= ln(1/delta). The bet with the largest
    s is taken.

    Args:
        rows: how many will be tested.
        mean: m, below 1.
        delta: of the test.
        gains: expected share of losses of -1, from other rows than those tested.

    Returns:
        The bet, between 0 and c / (1 - m).
    """
    _check_mean(mean)
    bets = _BETS_TRIED * _CAP / (1.0 - mean)
    still, worse, better = (np.log1p(bets * (mean - loss)) for loss in (0.0, 1.0, -1.0))
    negative = rows * gains
    borne = (rows * still + negative * (better - still) - math.log(1.0 / delta)) / (still - worse)
    return float(bets[int(borne.argmax())])


def _check_mean(mean: float) -> None:
    if not -1.0 <= mean < 1.0:
        raise ValueError(f"The mean is {mean}. It must be at least -1 and below 1.")
