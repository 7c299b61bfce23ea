"""What a guarantee may bound: two losses per answered row, each with the test that suits its range.

The reference is the uncut float32 network: all stages, no early exit, nothing coded on the way.

- `disagreement`: 1 where the answer differs from the reference's. It needs no labels, and its mean bounds the
  accuracy gap from above. Tested by the exact binomial tail.
- `accuracy-gap`: 1 where only the reference is right, -1 where only the early answer is right, else 0. Its mean
  is the accuracy lost; gains pay for losses. Tested by betting on the losses as they are, in [-1, 1].

These are the "consistency" and "prediction gap" risks of Jazbec et al., "Fast yet Safe: Early-Exiting with Risk
Control" (NeurIPS 2024), section 3. Neither is monotone in the thresholds: a row may be answered wrongly at the
second exit and rightly at the first. Conformal risk control (Angelopoulos et al., 2024) needs a monotone loss,
so it is not offered.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from calibration import betting, binomial
from common.errors import ConfigError
from common.types import Array


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What some rows get and what they should get, [N] each or broadcast against it."""

    answers: Array  # class that is answered
    reference_N: Array  # class that the uncut float32 network answers
    labels_N: Array | None  # the right class, where it is known


@dataclass(frozen=True, kw_only=True)
class Test:
    """A test of "the mean loss exceeds epsilon" that adds up a price per row: it rejects up to `most`."""

    price: Callable[[Array], Array]  # of each loss
    most: float

    def rejects(self, losses_N: Array) -> bool:
        """Whether these rows show that the mean loss is at most epsilon."""
        return bool(self.price(losses_N).sum() <= self.most)


class Risk(Protocol):
    """A loss per row, its test and its upper limit.

    `aim` is what other rows, those of the tune split, showed: the share of losses below zero.
    """

    name: str
    lowest: float  # smallest possible loss; the largest is 1
    test_name: str

    def losses(self, rows: Answered) -> Array:
        """Loss of each answer, float64, shaped like the answers."""
        ...

    def test(self, rows: int, epsilon: float, delta: float, aim: float = 0.0) -> Test:
        """The test of one epsilon for so many rows; wrong with probability at most delta."""
        ...

    def limit(self, losses_N: Array, epsilon: float, delta: float, aim: float = 0.0) -> float:
        """Upper limit of the mean loss, wrong with probability at most delta; sharpest near epsilon."""
        ...


class Disagreement:
    """How often the answer differs from that of the uncut float32 network."""

    name = "disagreement"
    lowest = 0.0
    test_name = "exact binomial tail (Clopper-Pearson)"

    def losses(self, rows: Answered) -> Array:
        """1 where the answers differ."""
        result: Array = (rows.answers != rows.reference_N).astype(np.float64)
        return result

    def test(self, rows: int, epsilon: float, delta: float, aim: float = 0.0) -> Test:
        """Reject up to the largest count whose Clopper-Pearson limit is at most epsilon."""
        return Test(price=_as_they_are, most=float(binomial.most_losses(rows, epsilon, delta)))

    def limit(self, losses_N: Array, epsilon: float, delta: float, aim: float = 0.0) -> float:
        """Clopper-Pearson limit; epsilon and aim do not matter."""
        return binomial.upper_limit(int(losses_N.sum()), len(losses_N), delta)


class AccuracyGap:
    """How much accuracy is lost against the uncut float32 network."""

    name = "accuracy-gap"
    lowest = -1.0
    test_name = "betting (Waudby-Smith and Ramdas), losses in [-1, 1] as they are"

    def losses(self, rows: Answered) -> Array:
        """1 where only the reference is right, -1 where only the answer is.

        Raises:
            ConfigError: without labels.
        """
        if rows.labels_N is None:
            raise ConfigError("The accuracy gap needs labels. Without them, guarantee the disagreement.")
        right = (rows.answers == rows.labels_N).astype(np.float64)
        result: Array = (rows.reference_N == rows.labels_N) - right
        return result

    def test(self, rows: int, epsilon: float, delta: float, aim: float = 0.0) -> Test:
        """Reject once the capital of the game for epsilon reaches 1/delta."""
        bet = betting.tolerant_bet(rows, epsilon, delta, aim)
        return Test(price=lambda losses: -betting.log_growth(losses, epsilon, bet), most=math.log(delta))

    def limit(self, losses_N: Array, epsilon: float, delta: float, aim: float = 0.0) -> float:
        """Betting limit with the bet that suits epsilon."""
        bet = betting.tolerant_bet(len(losses_N), epsilon, delta, aim)
        return betting.upper_limit(losses_N, delta, bet)


def _as_they_are(losses: Array) -> Array:
    return losses


RISKS: dict[str, Risk] = {risk.name: risk for risk in (Disagreement(), AccuracyGap())}


def risk_named(name: str) -> Risk:
    """The risk of that name, else ConfigError."""
    if name not in RISKS:
        raise ConfigError(f"The risk is {name!r}. It must be one of {', '.join(sorted(RISKS))}.")
    return RISKS[name]
