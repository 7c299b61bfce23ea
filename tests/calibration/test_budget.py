import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.budget import thresholds_within
from calibration.thresholds import exits_taken
from common.criteria import CRITERIA
from common.errors import ConfigError
from tests.calibration.judged import FLOPS, judge_rows

criteria = st.sampled_from(sorted(CRITERIA))


@settings(max_examples=25, deadline=None)
@given(criterion=criteria, seed=st.integers(0, 999), budget=st.floats(0.05, 1.0), rows=st.integers(1, 500))
def test_meets_the_budget_on_the_rows_it_was_set_on(criterion: str, seed: int, budget: float, rows: int) -> None:
    tune = judge_rows(rows, seed, criterion)
    thresholds = thresholds_within(tune.criterion, tune.scores.scores_EN, FLOPS, budget)
    cost = FLOPS[exits_taken(tune.criterion, tune.scores.scores_EN, thresholds)].mean()
    assert cost <= budget * FLOPS[-1] * (1 + 1e-9)
    for threshold in thresholds:
        tune.criterion.check(threshold)


@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"patience"}))
def test_comes_close_to_it_and_holds_on_fresh_rows(criterion: str) -> None:
    tune, fresh = judge_rows(4000, 1, criterion), judge_rows(20_000, 2, criterion)
    right = []
    for budget in (0.1, 0.3, 0.5, 0.8):
        thresholds = thresholds_within(tune.criterion, tune.scores.scores_EN, FLOPS, budget)
        cost = FLOPS[exits_taken(tune.criterion, tune.scores.scores_EN, thresholds)].mean() / FLOPS[-1]
        assert budget - 0.02 < cost <= budget
        taken = exits_taken(fresh.criterion, fresh.scores.scores_EN, thresholds)
        assert abs(FLOPS[taken].mean() / FLOPS[-1] - budget) < 0.03
        right.append((fresh.scores.labels_EN[taken, np.arange(20_000)] == fresh.rows.labels_N).mean())
    assert all(more > less - 0.002 for less, more in itertools.pairwise(right))  # two ways to the same accuracy


def test_a_budget_that_no_exit_meets_and_one_that_asks_for_nothing() -> None:
    tune = judge_rows(100, 0)
    with pytest.raises(ConfigError, match=r"A budget of 0\.01 .* the first exit takes 0\.05 of them"):
        thresholds_within(tune.criterion, tune.scores.scores_EN, FLOPS, 0.01)
    assert np.isnan(thresholds_within(tune.criterion, tune.scores.scores_EN, FLOPS, 1.0)[:-1]).all()
