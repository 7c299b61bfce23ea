"""How much less accurate one answer is than another to the same rows: a test and an upper limit, exact on few rows.

Of n independent rows, x are right by the reference alone and y by the other answer alone, with probabilities p and q.
The drop is p - q; the share of rows that tell the two apart, s = p + q, is unknown as well.

**The limit** is Buehler's for a given ranking of outcomes (Lloyd and Moldovan, "Exact one-sided confidence limits for
the difference between two correlated proportions", Statistics in Medicine 26, 2007): the largest drop under which an
outcome that ranks no higher than the one seen still has a probability above delta. Outcomes are ranked by

    x - y + z sqrt(x + y + 1),

n times the approximate limit of Agresti and Min (2005) up to a small term, z the normal quantile of the confidence.
The ranking decides how narrow the limit is; that it holds follows from the probabilities alone, which are those of the
trinomial law: x + y is binomial with s, and x among x + y is binomial with (1 + drop / s) / 2.

**The unknown share** is taken where the probability is largest, within the exact interval of s that misses it with
probability delta / 1000, and the level is lowered by as much (Berger and Boos, "P values maximized over a confidence
set for the nuisance parameter", JASA 89, 1994). With a given s the probability falls as the drop rises, so halving an
interval finds the limit.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from calibration import binomial
from common.types import Array

_SPENT = 0.001  # part of delta that the interval of s takes
_STEP = 0.125  # between shares that are tried: a quarter of the deviation of what is seen of them
_WIDE = 7.0  # deviations on either side that are summed; what lies beyond counts as if it ranked low


@lru_cache(maxsize=65536)
def drop_shown(worse: int, better: int, rows: int, drop: float, confidence: float) -> bool:
    """Whether rows show that the drop in accuracy is at most `drop`: where it is more, with at most 1 - confidence.

    Args:
        worse: rows that only the reference answers right.
        better: rows that only the other answers right.
        rows: all rows.
        drop: from -1 to 1.
        confidence: from 0.5 to below 1.
    """
    if drop >= 1.0:
        return True
    if rows == 0 or worse - better > rows * drop:
        return False
    z = NormalDist().inv_cdf(confidence)
    rank = worse - better + z * math.sqrt(worse + better + 1.0)
    shares = _shares(worse + better, rows, drop, confidence)
    return not any(_ranks_low(rank, z, rows, drop, share) > _level(confidence) for share in shares)


def drop_limit(worse: int, better: int, rows: int, confidence: float) -> float:
    """One-sided upper limit of the drop in accuracy, to 1e-6 and on the safe side; arguments as `drop_shown`."""
    low, high = (worse - better) / max(rows, 1), 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2.0
        if drop_shown(worse, better, rows, middle, confidence):
            high = middle
        else:
            low = middle
    return high


def least_drop(rows: int, confidence: float) -> float:
    """The limit of rows that do not differ once: no smaller drop can be shown by as many."""
    return binomial.smallest_epsilon(rows, _level(confidence))


def rows_needed(drop: float, confidence: float) -> int:
    """The fewest rows that can show a drop, above 0, if they do not differ once."""
    return math.ceil(math.log(_level(confidence)) / math.log1p(-drop))


def _level(confidence: float) -> float:
    return (1.0 - confidence) * (1.0 - _SPENT)


def _shares(told: int, rows: int, drop: float, confidence: float) -> list[float]:
    """Shares of rows that tell the answers apart, as far as they may be; none where the drop needs a larger one."""
    spent = (1.0 - confidence) * _SPENT / 2.0
    least = max(binomial.lower_limit(told, rows, spent), abs(drop))
    most = binomial.upper_limit(told, rows, spent)
    if least > most:
        return []
    first, last = math.asin(math.sqrt(least)), math.asin(math.sqrt(most))
    count = 2 + int((last - first) * math.sqrt(rows) / _STEP)
    return [math.sin(angle) ** 2 for angle in np.linspace(first, last, count)]


def _ranks_low(rank: float, z: float, rows: int, drop: float, share: float) -> float:
    """P(x - y + z sqrt(x + y + 1) <= rank) when rows tell the answers apart with probability `share`."""
    told_M = _around(rows, share)
    law_M = np.exp(_log_terms(rows, told_M, share))
    # of `told` rows, x may be so many: 2x - told <= rank - z sqrt(told + 1)
    most_M = np.floor((told_M + rank - z * np.sqrt(told_M + 1.0)) / 2.0 + 1e-9)
    turn = min(max((1.0 + drop / share) / 2.0, 0.0), 1.0) if share else 0.5  # rounding may lead out
    worse_X = np.arange(_around(int(told_M[0]), turn)[0], _around(int(told_M[-1]), turn)[-1] + 1.0)
    terms_MX = np.exp(_log_terms(told_M[:, None], worse_X, turn)) * (worse_X <= told_M[:, None])
    below_M = (terms_MX * (worse_X <= most_M[:, None])).sum(axis=1)
    unseen_M = np.maximum(1.0 - terms_MX.sum(axis=1), 0.0)
    return float((law_M * (below_M + unseen_M)).sum() + max(1.0 - law_M.sum(), 0.0))


def _around(trials: int, p: float) -> Array:
    """Where a binomial law has nearly all of its mass, as float64."""
    middle, half = trials * p, _WIDE * math.sqrt(trials * p * (1.0 - p)) + _WIDE
    return np.arange(max(0.0, math.floor(middle - half)), min(float(trials), math.ceil(middle + half)) + 1.0)


def _log_terms(trials: int | Array, counts: Array, p: float) -> Array:
    """Logarithms of a binomial law's terms; meaningless where a count exceeds its trials."""
    p = min(max(p, 1e-15), 1.0 - 1e-15)
    top = int(np.max(trials))
    logs = _log_factorials(1 << top.bit_length())
    rest = np.maximum(trials - counts, 0).astype(np.int64)
    chosen = logs[np.asarray(trials, np.int64)] - logs[np.minimum(counts, top).astype(np.int64)] - logs[rest]
    result: Array = chosen + counts * math.log(p) + rest * math.log1p(-p)
    return result


@lru_cache(maxsize=8)
def _log_factorials(most: int) -> Array:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, most + 1.0)))])
