"""How exits answer together: a weighted geometric mean of what the exits passed and this one say.

Wolczyk et al., "Zero Time Waste: Recycling Predictions in Early Exit Neural Networks" (NeurIPS 2021), section 3.2:
p_k ~ b_k * product over j <= k of p_j ** w_kj with w_kj >= 0, fitted to minimise the cross-entropy. In logarithms
this is multinomial logistic regression on the exits' log-probabilities, so the loss is convex in weights and bias;
projected gradient descent with momentum (FISTA: Beck and Teboulle, 2009) finds its minimum.

A weak prior holds weights at "this exit alone" and the bias at 0, so that a split on which every answer is right
has a minimum too.

Tensor names carry their axes: N rows of a split, K exits up to one, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.criteria import log_softmax
from common.manifest import Combination, Exit
from common.types import Array

_MOST_STEPS = 300
_PRIOR = 1.0  # in rows
_DIGITS = 6
_CLOSE = 1e-6
_SHORTEST = 1e-9


def fit_combinations(logits: Sequence[Array], exits: Sequence[Exit], labels_N: Array) -> list[Combination]:
    """One combination per exit, from the tune split.

    Args:
        logits: [N, C] of every exit.
        exits: with the temperatures that were fitted.
        labels_N: right classes.
    """
    logs = [log_softmax(logits_NC, leave.temperature) for logits_NC, leave in zip(logits, exits, strict=True)]
    return [fit_combination(np.stack(logs[: number + 1], axis=1), labels_N) for number in range(len(logs))]


def fit_combination(logs_NKC: Array, labels_N: Array) -> Combination:
    """The combination of some exits for the answer of the last of them."""
    problem = _Problem(logs_NKC, labels_N)
    best = at = problem.start
    value, momentum, length = problem.loss(best), 1.0, 1.0
    for _ in range(_MOST_STEPS):
        new, length = problem.step(at, length)
        new_value = problem.loss(new)
        if new_value > value:  # momentum carried it too far
            at, momentum = best, 1.0
            continue
        moved = float(np.abs(new - best).max())
        following = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        at = new + (momentum - 1.0) / following * (new - best)
        best, value, momentum = new, new_value, following
        if moved < _CLOSE:
            break
    exits = logs_NKC.shape[1]
    numbers = [round(float(number), _DIGITS) for number in best]
    return Combination(weights=tuple(numbers[:exits]), bias=tuple(numbers[exits:]))


class _Problem:
    """Mean cross-entropy with the prior, as a function of weights and bias in one vector, [K + C]."""

    def __init__(self, logs_NKC: Array, labels_N: Array) -> None:
        rows, self._exits, classes = logs_NKC.shape
        self._logs_NKC = logs_NKC.astype(np.float64)
        self._wanted_NC = np.eye(classes)[labels_N]
        self._prior = _PRIOR / rows
        self.start = np.zeros(self._exits + classes)
        self.start[self._exits - 1] = 1.0

    def loss(self, at: Array) -> float:
        """What is to be small."""
        scores_NC = self._scores(at)
        entropy = np.log(np.exp(scores_NC).sum(axis=1)) - (scores_NC * self._wanted_NC).sum(axis=1)
        return float(entropy.mean() + self._prior / 2.0 * ((at - self.start) ** 2).sum())

    def step(self, at: Array, length: float) -> tuple[Array, float]:
        """A step down the slope that does not overshoot, weights kept from 0; and its length, for the next."""
        here, slope = self.loss(at), self._slope(at)
        length *= 1.5
        while True:
            new = at - length * slope
            new[: self._exits] = np.maximum(new[: self._exits], 0.0)
            moved = new - at
            if self.loss(new) <= here + slope @ moved + moved @ moved / (2.0 * length) or length < _SHORTEST:
                return new, length
            length /= 2.0

    def _slope(self, at: Array) -> Array:
        probs_NC = np.exp(self._scores(at))
        error_NC = probs_NC / probs_NC.sum(axis=1, keepdims=True) - self._wanted_NC
        rows = len(error_NC)
        weights_K = np.einsum("nkc,nc->k", self._logs_NKC, error_NC) / rows
        slope: Array = np.concatenate([weights_K, error_NC.sum(axis=0) / rows]) + self._prior * (at - self.start)
        return slope

    def _scores(self, at: Array) -> Array:
        """Unnormalised log-probabilities, the largest of a row 0, [N, C]."""
        scores_NC = np.einsum("nkc,k->nc", self._logs_NKC, at[: self._exits]) + at[self._exits :]
        result: Array = scores_NC - scores_NC.max(axis=1, keepdims=True)
        return result
