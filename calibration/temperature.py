"""Temperature scaling: one number per exit that makes its probabilities honest.

Guo et al., "On Calibration of Modern Neural Networks" (2017): divide logits by T > 0, chosen to minimise the
negative log-likelihood. The likelihood is unimodal in 1/T, so a golden-section search over log T finds it.

Tensor names carry their axes: N rows of a split, C classes.
"""

from __future__ import annotations

import math

import numpy as np

from common.types import Array

LOWEST, HIGHEST = 0.05, 20.0
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def cross_entropy(logits_NC: Array, labels_N: Array, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    scaled = logits_NC.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    picked = scaled[np.arange(len(labels_N)), labels_N]
    return float((np.log(np.exp(scaled).sum(axis=1)) - picked).mean())


def prior_entropy(labels_N: Array) -> float:
    """Nats of cross-entropy of whoever knows how frequent the classes are, and nothing of a row."""
    share_C = np.bincount(labels_N) / len(labels_N)
    share_C = share_C[share_C > 0]
    return float(-(share_C * np.log(share_C)).sum())


def fit_temperature(logits_NC: Array, labels_N: Array, *, tolerance: float = 1e-4) -> float:
    """The temperature that minimises `cross_entropy`, between 0.05 and 20.

    Logits that separate the classes without an error have no minimum; they get the lowest temperature.
    """
    low, high = math.log(LOWEST), math.log(HIGHEST)

    def loss(log_temperature: float) -> float:
        return cross_entropy(logits_NC, labels_N, math.exp(log_temperature))

    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    loss_left, loss_right = loss(left), loss(right)
    while high - low > tolerance:
        if loss_left <= loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - _GOLDEN * (high - low)
            loss_left = loss(left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + _GOLDEN * (high - low)
            loss_right = loss(right)
    return math.exp((low + high) / 2.0)
