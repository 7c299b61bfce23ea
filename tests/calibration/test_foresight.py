import itertools

import numpy as np
import pytest

from calibration.foresight import auroc, foresight, nothing_gained


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    surety, positive = np.round(rng.random(60), 1), rng.random(60) < 0.4  # with ties
    pairs = list(itertools.product(surety[positive], surety[~positive]))
    wanted = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])
    assert auroc(surety, positive) == pytest.approx(wanted)
    assert auroc(positive.astype(float), positive) == 1.0
    assert np.isnan(auroc(surety, np.ones(60, bool)))


def test_a_row_that_nobody_gets_right_may_leave() -> None:
    right = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0]], bool)
    assert nothing_gained(right, 0).tolist() == [True, False, False, True]
    assert nothing_gained(right, 1).tolist() == [False, True, False, True]


def test_both_questions() -> None:
    right = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)
    found = foresight(np.array([0.9, 0.8, 0.2, 0.95]), right, 0)
    assert found["right"]["auroc"] == pytest.approx(0.5)  # the last row is sure and wrong,
    assert found["leave"]["auroc"] == 1.0  # but nothing is gained by going on with it
    low, high = found["right"]["interval"]
    assert 0.0 <= low <= high <= 1.0
    assert foresight(np.ones(4), np.ones((2, 4), bool), 0) == {"right": None, "leave": None}
