import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import binomial
from calibration.certify import Certified, certify, fixed_sequence
from calibration.ladder import Ladder, build_ladder
from calibration.risks import RISKS, Answered, risk_named
from calibration.thresholds import ExitScores
from common.criteria import CRITERIA
from common.errors import ConfigError
from tests.calibration.judged import FLOPS, Judged, judge_rows

risks = st.sampled_from(sorted(RISKS))


def made(risk: str, rows: int, seed: int = 0, epsilon: float = 0.05, delta: float = 0.1) -> tuple[Certified, Ladder]:
    tune, fresh = judge_rows(1000, seed), judge_rows(rows, seed + 1)
    ladder = build_ladder(tune.criterion, tune.scores, tune.rows, risk_named(risk), FLOPS)
    return certified(ladder, fresh, risk, epsilon, delta), ladder


def certified(ladder: Ladder, fresh: Judged, risk: str, epsilon: float, delta: float = 0.1) -> Certified:
    return certify(ladder, fresh.scores, fresh.rows, risk_named(risk), FLOPS, epsilon=epsilon, delta=delta)


@settings(deadline=None, max_examples=20)
@given(risk=risks, rows=st.integers(1, 1500), seed=st.integers(0, 999), epsilon=st.sampled_from([0.01, 0.05, 0.2]))
def test_the_chosen_rung_is_the_last_before_a_failure(risk: str, rows: int, seed: int, epsilon: float) -> None:
    found, ladder = made(risk, rows, seed, epsilon)
    limits = [rung.limit for rung in found.rungs]
    clear = [abs(limit - epsilon) > 1e-9 for limit in limits]
    for number in range(found.passed):
        assert limits[number] <= epsilon or not clear[number]
    if found.passed < len(ladder):
        assert limits[found.passed] >= epsilon or not clear[found.passed]
    assert found.chosen == (found.passed - 1 if found.passed else None)
    assert [rung.thresholds for rung in found.rungs] == list(ladder.thresholds_KE)


@settings(deadline=None, max_examples=20)
@given(risk=risks, rows=st.integers(1, 1500), seed=st.integers(0, 999))
def test_wider_statements_have_wider_limits(risk: str, rows: int, seed: int) -> None:
    found, _ = made(risk, rows, seed)
    for rung in found.rungs:
        assert -1.0 <= rung.mean_loss <= rung.limit <= 1.0
        if risk == "disagreement":  # one test, so more certainty costs; a bet may be aimed better
            assert rung.limit <= rung.limit_all
        assert rung.limit_all >= rung.mean_loss
        for leave, (limit, threshold) in enumerate(zip(rung.limit_exits, rung.thresholds, strict=False)):
            assert leave < 2 and (limit is None) == math.isnan(threshold)
            assert limit is None or limit <= 1.0


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), rows=st.sampled_from([60, 300, 2000]))
def test_a_larger_epsilon_or_delta_never_passes_fewer(seed: int, rows: int) -> None:
    tune, fresh, risk = judge_rows(1000, seed), judge_rows(rows, seed + 1), risk_named("disagreement")
    ladder = build_ladder(tune.criterion, tune.scores, tune.rows, risk, FLOPS)
    losses_KN = ladder.losses(fresh.scores, fresh.rows, risk)
    by_epsilon = [fixed_sequence(losses_KN, ladder.aims_K, risk, e, 0.1) for e in (0.005, 0.02, 0.05, 0.2)]
    by_delta = [fixed_sequence(losses_KN, ladder.aims_K, risk, 0.03, d) for d in (0.001, 0.05, 0.3)]
    assert by_epsilon == sorted(by_epsilon) and by_delta == sorted(by_delta)


def test_stops_at_the_first_failure() -> None:
    """Rung 2 fails, rung 3 would pass: it is not reached."""
    losses = np.zeros((4, 200))
    losses[2, :50] = 1.0
    for risk in RISKS.values():
        assert fixed_sequence(losses, (0.0,) * 4, risk, 0.05, 0.1) == 2
        assert fixed_sequence(losses[:2], (0.0,) * 2, risk, 0.05, 0.1) == 2
        assert fixed_sequence(losses[2:], (0.0,) * 2, risk, 0.05, 0.1) == 0


@pytest.mark.parametrize("risk", sorted(RISKS))
def test_an_epsilon_that_so_few_rows_cannot_show(risk: str) -> None:
    """Not even rung 0 passes, and the smallest epsilon says why."""
    found, _ = made(risk, rows=20, epsilon=0.05)
    assert found.chosen is None and found.passed == 0
    assert found.smallest_epsilon == pytest.approx(1 - 0.1 ** (1 / 20), rel=2e-3)
    found, _ = made(risk, rows=1, epsilon=0.5)
    assert found.chosen is None and found.smallest_epsilon == pytest.approx(0.9, rel=2e-3)


@pytest.mark.parametrize("risk", sorted(RISKS))
def test_the_smallest_epsilon_is_reached_by_rows_without_a_loss(risk: str) -> None:
    never_wrong = Answered(answers=np.zeros((2, 100), int), reference_N=np.zeros(100, int), labels_N=np.zeros(100, int))
    scores = ExitScores(scores_EN=np.full((2, 100), np.float32(0.9)), labels_EN=never_wrong.answers)
    ladder = build_ladder(CRITERIA["margin"], scores, never_wrong, risk_named(risk), FLOPS[1:])

    def passed(epsilon: float) -> int:
        return certify(ladder, scores, never_wrong, risk_named(risk), FLOPS[1:], epsilon=epsilon, delta=0.1).passed

    smallest = certify(
        ladder, scores, never_wrong, risk_named(risk), FLOPS[1:], epsilon=0.5, delta=0.1
    ).smallest_epsilon
    assert smallest == pytest.approx(binomial.smallest_epsilon(100, 0.1), rel=2e-3)
    assert passed(smallest * 1.001) == len(ladder) and passed(smallest * 0.99) == 0


def test_always_wrong_and_always_better() -> None:
    rows = 400
    wrong = Answered(answers=np.ones((2, rows), int), reference_N=np.zeros(rows, int), labels_N=np.zeros(rows, int))
    scores = ExitScores(scores_EN=np.full((2, rows), np.float32(0.9)), labels_EN=wrong.answers)
    for risk in RISKS.values():
        ladder = build_ladder(CRITERIA["margin"], scores, wrong, risk, FLOPS[1:])
        found = certify(ladder, scores, wrong, risk, FLOPS[1:], epsilon=0.5, delta=0.1)
        assert found.chosen is None and all(rung.limit == rung.limit_all == 1.0 for rung in found.rungs)
    better = replace(wrong, labels_N=np.ones(rows, int))
    gap = risk_named("accuracy-gap")
    ladder = build_ladder(CRITERIA["margin"], scores, better, gap, FLOPS[1:])
    found = certify(ladder, scores, better, gap, FLOPS[1:], epsilon=0.01, delta=0.1)
    assert found.passed == len(ladder) and found.rungs[-1].limit < -0.9


def test_limits_of_an_exit_are_of_the_rows_that_it_answers() -> None:
    found, ladder = made("disagreement", rows=2000)
    fresh = judge_rows(2000, 1)
    losses = risk_named("disagreement").losses(fresh.rows)
    number = len(ladder) // 2
    taken = ladder.exits_taken(fresh.scores, number)
    for leave in (0, 1):
        there = losses[leave][taken == leave]
        wanted = binomial.upper_limit(int(there.sum()), len(there), 0.1 / (2 * len(ladder)))
        assert found.rungs[number].limit_exits[leave] == pytest.approx(wanted)


def test_limits_for_all_rungs_hold_together() -> None:
    """Drawn 200 times from 5,000 rows: some limit falls short of its rung's true mean loss in at most delta of them."""
    tune, rows = judge_rows(800, 3), judge_rows(5000, 4)
    rng = np.random.default_rng(0)
    for risk in RISKS.values():
        ladder = build_ladder(tune.criterion, tune.scores, tune.rows, risk, FLOPS, most=12)
        truth = ladder.losses(rows.scores, rows.rows, risk).mean(axis=1)
        short = 0
        for _ in range(200):
            at = rng.integers(0, 5000, 300)
            scores = ExitScores(scores_EN=rows.scores.scores_EN[:, at], labels_EN=rows.scores.labels_EN[:, at])
            drawn = Answered(
                answers=rows.rows.answers[:, at],
                reference_N=rows.rows.reference_N[at],
                labels_N=None if rows.rows.labels_N is None else rows.rows.labels_N[at],
            )
            found = certify(ladder, scores, drawn, risk, FLOPS, epsilon=0.05, delta=0.1)
            short += any(rung.limit_all < true for rung, true in zip(found.rungs, truth, strict=True))
        assert binomial.lower_limit(short, 200, 1e-3) <= 0.1


def test_on_fresh_rows_the_promise_holds() -> None:
    """No stored population: every certify split is new, and true risks are those of 60,000 further rows."""
    tune, further = judge_rows(800, 3), judge_rows(60_000, 4)
    for risk in RISKS.values():
        ladder = build_ladder(tune.criterion, tune.scores, tune.rows, risk, FLOPS, most=30)
        truth = ladder.losses(further.scores, further.rows, risk).mean(axis=1)
        rung = int(np.argmax(truth > 0.03))
        for epsilon in (0.03, float(truth[rung]) - 0.003):  # 0.003: four standard errors of the truth
            broken = 0
            for seed in range(300):
                fresh = judge_rows(250, 100 + seed)
                losses_KN = ladder.losses(fresh.scores, fresh.rows, risk)
                chosen = fixed_sequence(losses_KN, ladder.aims_K, risk, epsilon, 0.1) - 1
                broken += chosen >= 0 and truth[chosen] > epsilon
            assert binomial.lower_limit(int(broken), 300, 0.01) <= 0.1


def test_mistakes_are_one_sentence() -> None:
    _, ladder = made("disagreement", rows=30)
    empty = judge_rows(0, 0)
    with pytest.raises(ConfigError, match="certify split holds no rows"):
        certified(ladder, empty, "disagreement", 0.05)
    fresh = judge_rows(30, 0)
    for epsilon in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ConfigError, match="epsilon is"):
            certified(ladder, fresh, "disagreement", epsilon)
    with pytest.raises(ConfigError, match="delta is 1"):
        certified(ladder, fresh, "disagreement", 0.05, 1.0)
