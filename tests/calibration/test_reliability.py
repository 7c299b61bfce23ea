import numpy as np
import pytest

from calibration.reliability import reliability
from common.criteria import softmax


def test_bins_and_errors_of_a_case_worked_by_hand() -> None:
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    labels = np.array([0, 1, 1, 1])
    found = reliability(probs, labels, bins=10)
    assert [(one.rows, one.accuracy) for one in found.bins] == [(1, 1.0), (1, 1.0), (2, 0.5)]
    assert [one.confidence for one in found.bins] == pytest.approx([0.6, 0.8, 0.9])
    assert found.ece == pytest.approx((0.4 + 0.2 + 2 * 0.4) / 4)
    assert found.brier == pytest.approx((2 * 0.01 + 2 * 0.81 + 2 * 0.16 + 2 * 0.04) / 4)


def test_certain_and_right_costs_nothing() -> None:
    found = reliability(np.eye(3), np.arange(3))
    assert (found.ece, found.brier, len(found.bins)) == (0.0, 0.0, 1)
    wrong = reliability(np.eye(3), np.array([1, 2, 0]))
    assert (wrong.ece, wrong.brier) == (1.0, 2.0)


def test_probabilities_that_hold_have_little_error() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 4))
    probs = softmax(logits)
    labels = np.array([rng.choice(4, p=p / p.sum()) for p in probs.astype(np.float64)])
    assert reliability(probs, labels).ece < 0.02
    assert reliability(softmax(3 * logits), labels).ece > 0.1  # three times too sure
