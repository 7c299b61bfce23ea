import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.ladder import MOST_RUNGS, build_ladder, isotonic
from calibration.risks import RISKS, Answered, risk_named
from calibration.thresholds import ExitScores, accepts
from common.criteria import CRITERIA
from common.errors import ConfigError
from tests.calibration.judged import FLOPS, judge_rows

criteria = st.sampled_from(sorted(CRITERIA))
risks = st.sampled_from(sorted(RISKS))


@settings(deadline=None, max_examples=30)
@given(criterion=criteria, risk=risks, rows=st.integers(1, 700), seed=st.integers(0, 999), most=st.integers(2, 60))
def test_rungs_are_nested_from_the_last_exit_to_the_first(
    criterion: str, risk: str, rows: int, seed: int, most: int
) -> None:
    tune = judge_rows(rows, seed, criterion)
    ladder = build_ladder(tune.criterion, tune.scores, tune.rows, risk_named(risk), FLOPS, most=most)
    other = judge_rows(200, seed + 1, criterion)
    assert 2 <= len(ladder) <= most
    taken = np.stack([ladder.exits_taken(other.scores, rung) for rung in range(len(ladder))])
    assert (taken[0] == 2).all() and (taken[-1] == 0).all()
    assert (np.diff(taken, axis=0) <= 0).all()  # no row ever goes further on a lower rung
    for above, below in zip(ladder.thresholds_KE, ladder.thresholds_KE[1:], strict=False):
        assert above != below
        for number, limits in enumerate(zip(above, below, strict=True)):
            first, second = (accepts(tune.criterion, other.scores.scores_EN[number], limit) for limit in limits)
            assert (second >= first).all()
    for thresholds in ladder.thresholds_KE:
        for threshold in thresholds:
            tune.criterion.check(threshold)
        assert thresholds[-1] == tune.criterion.accept_all
    assert all(math.isnan(threshold) for threshold in ladder.thresholds_KE[0][:-1])


@settings(deadline=None, max_examples=30)
@given(criterion=criteria, risk=risks, seed=st.integers(0, 999))
def test_what_it_says_of_the_tune_split(criterion: str, risk: str, seed: int) -> None:
    tune = judge_rows(500, seed, criterion)
    ladder = build_ladder(tune.criterion, tune.scores, tune.rows, risk_named(risk), FLOPS)
    losses = ladder.losses(tune.scores, tune.rows, risk_named(risk))
    assert losses.shape == (len(ladder), 500)
    assert np.allclose(losses.mean(axis=1), ladder.risks_K)
    assert np.allclose((losses < 0).mean(axis=1), ladder.aims_K)


def test_is_no_worse_than_one_threshold_for_all_exits() -> None:
    """At equal risk on fresh rows it saves as much as a ladder of one shared threshold, or more."""
    tune, fresh = judge_rows(3000, 1), judge_rows(20_000, 2)
    risk = risk_named("disagreement")
    ladder = build_ladder(tune.criterion, tune.scores, tune.rows, risk, FLOPS)
    losses_EN = risk.losses(fresh.rows)

    def best(thresholds: list[tuple[float, ...]], epsilon: float) -> float:
        saved = [0.0]
        for limits in thresholds:
            taken = np.full(len(fresh.rows.reference_N), 2)
            for number in (1, 0):
                taken[fresh.scores.scores_EN[number] >= limits[number]] = number
            if losses_EN[taken, np.arange(len(taken))].mean() <= epsilon:
                saved.append(1 - FLOPS[taken].mean() / 20)
        return max(saved)

    shared = [(t, t, 0.0) for t in np.linspace(0, 1, 2001)]
    for epsilon in (0.02, 0.05, 0.1):
        assert best(list(ladder.thresholds_KE), epsilon) >= best(shared, epsilon) - 0.02


def test_scores_that_tie_are_let_in_together() -> None:
    """Saturated probabilities are common; rounding a threshold must not shut their rows out."""
    scores = np.concatenate([np.full(600, np.float32(1) - np.float32(6e-8)), np.full(400, np.float32(0.7))])
    found = ExitScores(scores_EN=np.stack([scores, scores]), labels_EN=np.zeros((2, 1000), int))
    rows = Answered(answers=found.labels_EN, reference_N=np.r_[np.zeros(600), np.ones(400)], labels_N=None)
    ladder = build_ladder(CRITERIA["max-probability"], found, rows, risk_named("disagreement"), FLOPS[1:])
    shares = {float((ladder.exits_taken(found, rung) == 0).mean()) for rung in range(len(ladder))}
    assert shares == {0.0, 0.6, 1.0}


@given(values=st.lists(st.floats(-1, 1), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_isotonic_regression(values: list[float], seed: int) -> None:
    weights = np.random.default_rng(seed).uniform(0.5, 3, len(values))
    fitted = np.array(isotonic(values, weights))
    assert (np.diff(fitted) >= -1e-12).all()
    assert np.dot(fitted, weights) == pytest.approx(np.dot(values, weights), abs=1e-9)
    # the second implementation: the max-min formula over all intervals
    total, weight = np.cumsum([0, *(values * weights)]), np.cumsum([0, *weights])
    n = len(values)
    for i in range(n):
        wanted = max(
            min((total[k] - total[j]) / (weight[k] - weight[j]) for k in range(i + 1, n + 1)) for j in range(i + 1)
        )
        assert fitted[i] == pytest.approx(wanted, abs=1e-9)


def test_one_exit_makes_one_rung() -> None:
    tune = judge_rows(50, 0)
    alone = ExitScores(scores_EN=tune.scores.scores_EN[-1:], labels_EN=tune.scores.labels_EN[-1:])
    rows = Answered(answers=alone.labels_EN, reference_N=tune.rows.reference_N, labels_N=None)
    ladder = build_ladder(tune.criterion, alone, rows, risk_named("disagreement"), FLOPS[-1:])
    assert ladder.thresholds_KE == ((0.0,),)


def test_an_empty_tune_split_is_refused() -> None:
    tune = judge_rows(0, 0)
    with pytest.raises(ConfigError, match="tune split holds no rows"):
        build_ladder(tune.criterion, tune.scores, tune.rows, risk_named("disagreement"), FLOPS)


def test_has_rungs_enough_where_limits_are_wanted() -> None:
    """Between neighbours the risk rises by little, so that stopping costs little."""
    tune, fresh = judge_rows(3000, 1), judge_rows(20_000, 2)
    risk = risk_named("disagreement")
    ladder = build_ladder(tune.criterion, tune.scores, tune.rows, risk, FLOPS)
    risks = ladder.losses(fresh.scores, fresh.rows, risk).mean(axis=1)
    low = risks[risks < 0.1]
    assert len(ladder) > MOST_RUNGS // 2 and len(low) > 10 and np.diff(low).max() < 0.02
