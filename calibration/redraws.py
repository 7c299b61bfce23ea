"""Does a guarantee hold? Draw the certify split again and again, and count how often the promise is broken.

The population is a set of stored rows whose every answer is known, so the true mean loss of each rung is known
too. One redraw is n of these rows drawn with replacement; the procedure under test picks a rung from them. It
breaks its promise when the rung's true mean loss exceeds epsilon. Over many redraws that may happen in a share
delta of them at most. `Verdict.holds` compares delta with the 99 % lower confidence limit of the observed
share, so that a valid procedure is rejected in at most 1 % of such checks.

Rows whose losses are equal at every rung are interchangeable: only how many of each kind are drawn matters, a
multinomial number. Both tests add up a price per row, so a matrix product tests all rungs in all redraws.

Tensor names carry their axes: R redraws, P kinds of rows (patterns), K rungs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from calibration import binomial
from calibration.risks import Risk
from common.types import Array

_CHECK_LEVEL = 0.01
_AT_ONCE = 2000  # redraws per matrix product


@dataclass(frozen=True, kw_only=True)
class Population:
    """Rows with known losses, and a ladder that was fixed on other rows."""

    losses_PK: Array  # of each kind of rows
    share_P: Array  # of each kind, sums to 1
    flops_K: Array  # mean FLOPs of a row at each rung
    full_flops: float  # of a row that goes to the last exit
    aims_K: tuple[float, ...]  # see `calibration.ladder.Ladder`

    @property
    def risks_K(self) -> Array:
        """True mean loss of every rung."""
        result: Array = self.share_P @ self.losses_PK
        return result

    @property
    def savings_K(self) -> Array:
        """Share of the FLOPs that every rung saves."""
        result: Array = 1.0 - self.flops_K / self.full_flops
        return result


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a procedure did in many redraws."""

    redraws: int
    violations: int
    savings: float  # mean share of the FLOPs saved; nothing where no rung was picked
    delta: float

    @property
    def rate(self) -> float:
        """Share of redraws in which the promise was broken."""
        return self.violations / self.redraws

    @property
    def lower_limit(self) -> float:
        """One-sided 99 % Clopper-Pearson lower limit of the true rate."""
        return binomial.lower_limit(self.violations, self.redraws, _CHECK_LEVEL)

    @property
    def holds(self) -> bool:
        """Whether the redraws agree with the promise."""
        return self.lower_limit <= self.delta


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One batch of redraws."""

    counts_RP: Array  # rows of each kind
    population: Population
    rows: int

    def means_RK(self) -> Array:
        """Mean loss of every rung."""
        result: Array = self.counts_RP @ self.population.losses_PK / self.rows
        return result

    def passes_RK(self, risk: Risk, epsilon: float, delta: float) -> Array:
        """Whether each rung passes its own test."""
        tests = [risk.test(self.rows, epsilon, delta, aim) for aim in self.population.aims_K]
        priced_PK = np.stack(
            [test.price(losses_P) for test, losses_P in zip(tests, self.population.losses_PK.T, strict=True)], axis=1
        )
        result: Array = self.counts_RP @ priced_PK <= np.array([test.most for test in tests])
        return result


Procedure = Callable[[Drawn, Risk, float, float], Array]  # picks a rung per redraw, [R]; -1 is none


def population(losses_KN: Array, flops_K: Array, full_flops: float, aims_K: tuple[float, ...]) -> Population:
    """Gather rows with equal losses; [K, N] losses of stored rows."""
    kinds_PK, counts_P = np.unique(losses_KN.T, axis=0, return_counts=True)
    return Population(
        losses_PK=kinds_PK,
        share_P=counts_P / counts_P.sum(),
        flops_K=flops_K,
        full_flops=full_flops,
        aims_K=aims_K,
    )


def fixed_sequence(drawn: Drawn, risk: Risk, epsilon: float, delta: float) -> Array:
    """The procedure of `calibration.certify`: the last rung before the first that does not pass."""
    passes_RK = drawn.passes_RK(risk, epsilon, delta)
    result: Array = np.where(passes_RK.all(axis=1), passes_RK.shape[1], passes_RK.argmin(axis=1)) - 1
    return result


def plug_in(drawn: Drawn, risk: Risk, epsilon: float, delta: float) -> Array:
    """Unguarded, and invalid: the cheapest rung whose mean loss on the drawn rows is at most epsilon."""
    return _cheapest(drawn.means_RK() <= epsilon, drawn.population)


def cheapest_that_passes(drawn: Drawn, risk: Risk, epsilon: float, delta: float) -> Array:
    """Invalid on a grid: the cheapest candidate that passes its own test, whatever comes before it."""
    return _cheapest(drawn.passes_RK(risk, epsilon, delta), drawn.population)


def judge(
    procedure: Procedure,
    rows_from: Population,
    risk: Risk,
    *,
    rows: int,
    epsilon: float,
    delta: float,
    redraws: int,
    seed: int,
) -> Verdict:
    """Count violations and savings of a procedure.

    Args:
        procedure: under test.
        rows_from: where certify splits are drawn from.
        risk: the loss that it promises to bound.
        rows: of each certify split.
        epsilon: its promise.
        delta: its promise.
        redraws: how many splits are drawn.
        seed: of the draws; the same seed draws the same splits for every procedure.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    broken_K = rows_from.risks_K > epsilon + 1e-12
    violations, saved = 0, 0.0
    for at in range(0, redraws, _AT_ONCE):
        size = min(_AT_ONCE, redraws - at)
        drawn = Drawn(
            counts_RP=rng.multinomial(rows, rows_from.share_P, size=size).astype(np.float64),
            population=rows_from,
            rows=rows,
        )
        picked_R = procedure(drawn, risk, epsilon, delta)
        some_R = picked_R >= 0
        violations += int((broken_K[picked_R] & some_R).sum())
        saved += float((rows_from.savings_K[picked_R] * some_R).sum())
    return Verdict(redraws=redraws, violations=violations, savings=saved / redraws, delta=delta)


def _cheapest(allowed_RK: Array, rows_from: Population) -> Array:
    """The allowed rung with the fewest FLOPs, -1 where none is allowed."""
    cost_RK = np.where(allowed_RK, rows_from.flops_K, np.inf)
    result: Array = np.where(allowed_RK.any(axis=1), cost_RK.argmin(axis=1), -1)
    return result
