"""Certify a rung of a ladder: the mean loss of its answers is at most epsilon, with probability 1 - delta.

Fixed-sequence testing (Maurer, Hothorn, Lehmacher, 1995; for risk control Angelopoulos et al., "Learn then
Test", 2021): the rungs are tested from the safest down, each at the whole level delta, and testing stops at the
first rung that does not pass. No correction for the number of rungs is due. Let rung k be the first one whose
true mean loss exceeds epsilon. A rung that breaks the promise can only be chosen if k passes its own test,
which happens with probability at most delta. This needs no order among the true risks; it needs that the
ladder was fixed without these rows, and that no rung is looked at out of turn. Picking the cheapest rung or the
cheapest point of a grid whose limit, or mean, lies below epsilon is another procedure: it tests every candidate.

Which statements hold together, each group with probability at least 1 - delta:

- the chosen rung and every rung above it: mean loss at most epsilon. Whoever wants one of them later may take
  it at no cost.
- `limit_all` of all rungs at once (each at level delta / K, by the union bound): any rung may be chosen by
  looking at these limits, for any epsilon.
- `limit_exits` of all rungs and early exits at once (each at level delta / (K (E - 1))): the mean loss among the
  rows that one exit answers. Given how many rows an exit answers, they are independent, so the tests hold.
- `limit` of one rung that was named without looking at these rows. It is what the test compares with epsilon.

Tensor names carry their axes: N rows of the certify split, E exits, K rungs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibration import binomial
from calibration.ladder import Ladder
from calibration.risks import Answered, Risk
from calibration.thresholds import ExitScores
from common.errors import ConfigError
from common.types import Array


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One vector of thresholds and what the certify split says about it."""

    thresholds: tuple[float, ...]
    mean_loss: float
    mean_flops: float
    accuracy: float | None  # None without labels
    exit_rates: tuple[float, ...]
    limit: float  # of this rung alone
    limit_all: float  # of all rungs at once
    limit_exits: tuple[float | None, ...]  # per early exit, of all rungs and exits at once; None: never accepts


@dataclass(frozen=True, kw_only=True)
class Certified:
    """The outcome of fixed-sequence testing."""

    risk: Risk
    epsilon: float
    delta: float
    rows: int
    rungs: tuple[Rung, ...]
    passed: int  # rungs from the top that passed

    @property
    def chosen(self) -> int | None:
        """The cheapest rung that passed; None when not even the last exit alone did."""
        return self.passed - 1 if self.passed else None

    @property
    def smallest_epsilon(self) -> float:
        """What so many rows can show at best, if not one of them shows a loss."""
        return self.risk.limit(np.zeros(self.rows), binomial.smallest_epsilon(self.rows, self.delta), self.delta)


def certify(
    ladder: Ladder, scores: ExitScores, rows: Answered, risk: Risk, flops_E: Array, *, epsilon: float, delta: float
) -> Certified:
    """Test the ladder on the certify split, all of its rows, from the safest rung down.

    Args:
        ladder: fixed on other rows.
        scores: of the certify split.
        rows: what every exit answers there, [E, N], and what should be answered.
        risk: the loss.
        flops_E: of a row that leaves at each exit.
        epsilon: what the mean loss may be, above 0 and below 1.
        delta: how probable it may be that it is more, above 0 and below 1.

    Raises:
        ConfigError: when the split is empty, or epsilon or delta are out of range.
    """
    check_promise(epsilon, delta)
    n = scores.scores_EN.shape[1]
    if not n:
        raise ConfigError("The certify split holds no rows, so nothing can be certified.")
    losses_KN = ladder.losses(scores, rows, risk)
    promise = _Promise(risk=risk, epsilon=epsilon, delta=delta, ladder=ladder, rows=rows, flops_E=flops_E)
    return Certified(
        risk=risk,
        epsilon=epsilon,
        delta=delta,
        rows=n,
        rungs=tuple(
            _rung(promise, number, losses_KN[number], ladder.exits_taken(scores, number))
            for number in range(len(ladder))
        ),
        passed=fixed_sequence(losses_KN, ladder.aims_K, risk, epsilon, delta),
    )


def fixed_sequence(losses_KN: Array, aims_K: tuple[float, ...], risk: Risk, epsilon: float, delta: float) -> int:
    """How many rungs pass, in order, before the first that does not."""
    for number, (losses_N, aim) in enumerate(zip(losses_KN, aims_K, strict=True)):
        if not risk.test(len(losses_N), epsilon, delta, aim).rejects(losses_N):
            return number
    return len(losses_KN)


def check_promise(epsilon: float, delta: float) -> None:
    """ConfigError unless both lie between 0 and 1, both excluded."""
    for name, value in (("epsilon", epsilon), ("delta", delta)):
        if not (math.isfinite(value) and 0.0 < value < 1.0):
            raise ConfigError(f"{name} is {value}. It must lie between 0 and 1, both excluded.")


@dataclass(frozen=True, kw_only=True)
class _Promise:
    """What is the same for all rungs."""

    risk: Risk
    epsilon: float
    delta: float
    ladder: Ladder
    rows: Answered
    flops_E: Array


def _rung(of: _Promise, number: int, losses_N: Array, taken_N: Array) -> Rung:
    thresholds, aim = of.ladder.thresholds_KE[number], of.ladder.aims_K[number]
    early = len(of.flops_E) - 1
    shared, split = of.delta / len(of.ladder), of.delta / (len(of.ladder) * max(early, 1))
    # Where the tune split expects the limit: a bet that suits it is valid and wins sooner.
    near = of.ladder.risks_K[number] + binomial.smallest_epsilon(len(losses_N), shared)
    near = min(max(of.epsilon, near), 0.99)
    exits: list[float | None] = []
    for leave in range(early):
        never = math.isnan(thresholds[leave])
        exits.append(None if never else of.risk.limit(losses_N[taken_N == leave], near, split, aim))
    accuracy = None
    if of.rows.labels_N is not None:
        accuracy = float((of.rows.answers[taken_N, np.arange(len(taken_N))] == of.rows.labels_N).mean())
    return Rung(
        thresholds=thresholds,
        mean_loss=float(losses_N.mean()),
        mean_flops=float(of.flops_E[taken_N].mean()),
        accuracy=accuracy,
        exit_rates=tuple(float(share) for share in np.bincount(taken_N, minlength=early + 1) / len(taken_N)),
        limit=of.risk.limit(losses_N, of.epsilon, of.delta, aim),
        limit_all=of.risk.limit(losses_N, near, shared, aim),
        limit_exits=tuple(exits),
    )
