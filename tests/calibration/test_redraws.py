import itertools

import numpy as np
import pytest

from calibration import redraws
from calibration.certify import fixed_sequence
from calibration.ladder import Ladder, build_ladder
from calibration.redraws import Population, Verdict, judge, population
from calibration.risks import RISKS, risk_named
from calibration.thresholds import candidates, exits_taken
from tests.calibration.judged import FLOPS, Judged, judge_rows

REDRAWS = 400


@pytest.fixture(scope="module", params=sorted(RISKS))
def drawn_from(request: pytest.FixtureRequest) -> tuple[str, Population]:
    tune, rows = judge_rows(1500, 1), judge_rows(6000, 2)
    risk = risk_named(request.param)
    ladder = build_ladder(tune.criterion, tune.scores, tune.rows, risk, FLOPS)
    return request.param, _of(ladder, rows, request.param)


def _of(ladder: Ladder, rows: Judged, risk: str) -> Population:
    flops = [FLOPS[ladder.exits_taken(rows.scores, rung)].mean() for rung in range(len(ladder))]
    losses = ladder.losses(rows.scores, rows.rows, risk_named(risk))
    return population(losses, np.array(flops), float(FLOPS[-1]), ladder.aims_K)


def _judge(procedure: redraws.Procedure, of: tuple[str, Population], rows: int, epsilon: float) -> Verdict:
    risk, rows_from = of
    return judge(
        procedure, rows_from, risk_named(risk), rows=rows, epsilon=epsilon, delta=0.1, redraws=REDRAWS, seed=rows
    )


@pytest.mark.parametrize(("rows", "epsilon"), [(100, 0.03), (100, 0.1), (1000, 0.01), (1000, 0.04), (5000, 0.02)])
def test_the_promise_holds(drawn_from: tuple[str, Population], rows: int, epsilon: float) -> None:
    verdict = _judge(redraws.fixed_sequence, drawn_from, rows, epsilon)
    assert verdict.holds and verdict.redraws == REDRAWS


@pytest.mark.parametrize("rows", [100, 1000, 5000])
def test_the_promise_holds_where_it_is_hardest(drawn_from: tuple[str, Population], rows: int) -> None:
    """Epsilon lies just below the true mean loss of a rung: picking it is wrong, and hard to tell from right."""
    risks = drawn_from[1].risks_K
    for rung in np.flatnonzero(risks > (0.03 if rows == 100 else 0.01))[[0, 3, 6]]:
        assert _judge(redraws.fixed_sequence, drawn_from, rows, float(risks[rung]) - 1e-9).holds


def test_the_check_rejects_the_unguarded_choice(drawn_from: tuple[str, Population]) -> None:
    risks = drawn_from[1].risks_K
    for rows, low in ((100, 0.03), (1000, 0.01), (5000, 0.01)):
        epsilon = float(risks[risks > low][0]) - 1e-9
        verdict = _judge(redraws.plug_in, drawn_from, rows, epsilon)
        assert not verdict.holds and verdict.rate > 0.2


def test_the_check_rejects_a_search_over_a_grid() -> None:
    tune, rows = judge_rows(1500, 1), judge_rows(6000, 2)
    risk = risk_named("disagreement")
    tried = [candidates(tune.criterion, scores_N, 20) for scores_N in tune.scores.scores_EN[:-1]]
    grid = [(*limits, tune.criterion.accept_all) for limits in itertools.product(*tried)]
    losses_EN = risk.losses(rows.rows)
    taken = [exits_taken(tune.criterion, rows.scores.scores_EN, limits) for limits in grid]
    everything = population(
        np.stack([losses_EN[t, np.arange(len(t))] for t in taken]),
        np.array([FLOPS[t].mean() for t in taken]),
        float(FLOPS[-1]),
        (0.0,) * len(grid),
    )
    verdict = _judge(redraws.plug_in, ("disagreement", everything), 1000, 0.05)
    assert not verdict.holds


def test_a_gate_that_always_fails_its_promise_and_one_that_never_picks(drawn_from: tuple[str, Population]) -> None:
    last = len(drawn_from[1].flops_K) - 1
    always = _judge(lambda drawn, *_: np.full(len(drawn.counts_RP), last), drawn_from, 50, 0.01)
    assert always.violations == REDRAWS and not always.holds
    assert always.savings == pytest.approx(drawn_from[1].savings_K[last])
    never = _judge(lambda drawn, *_: np.full(len(drawn.counts_RP), -1), drawn_from, 50, 0.01)
    assert never.violations == 0 and never.savings == 0.0 and never.holds


@pytest.mark.parametrize("risk", sorted(RISKS))
def test_in_one_go_as_one_by_one(risk: str) -> None:
    """What the matrix product picks is what `calibration.certify` picks for the same rows."""
    tune, rows = judge_rows(600, 5), judge_rows(900, 6)
    ladder = build_ladder(tune.criterion, tune.scores, tune.rows, risk_named(risk), FLOPS)
    losses_KN = ladder.losses(rows.scores, rows.rows, risk_named(risk))
    rows_from = _of(ladder, rows, risk)
    rng = np.random.default_rng(0)
    kind_of_N = np.array([np.flatnonzero((rows_from.losses_PK == row).all(axis=1))[0] for row in losses_KN.T])
    for _ in range(20):
        at = rng.integers(0, 900, 250)
        counts = np.bincount(kind_of_N[at], minlength=len(rows_from.share_P)).astype(float)
        drawn = redraws.Drawn(counts_RP=counts[None], population=rows_from, rows=250)
        passed = fixed_sequence(losses_KN[:, at], ladder.aims_K, risk_named(risk), 0.06, 0.1)
        assert redraws.fixed_sequence(drawn, risk_named(risk), 0.06, 0.1).tolist() == [passed - 1]
        assert np.allclose(drawn.means_RK()[0], losses_KN[:, at].mean(axis=1))


def test_a_population_knows_its_true_risks(drawn_from: tuple[str, Population]) -> None:
    risk, rows_from = drawn_from
    tune, rows = judge_rows(1500, 1), judge_rows(6000, 2)
    ladder = build_ladder(tune.criterion, tune.scores, tune.rows, risk_named(risk), FLOPS)
    assert np.allclose(rows_from.risks_K, ladder.losses(rows.scores, rows.rows, risk_named(risk)).mean(axis=1))
    assert rows_from.savings_K[0] == 0.0 and rows_from.savings_K[-1] == pytest.approx(0.95)
    assert rows_from.share_P.sum() == pytest.approx(1.0)


def test_a_verdict_allows_for_chance() -> None:
    assert Verdict(redraws=10_000, violations=1060, savings=0.0, delta=0.1).holds
    assert not Verdict(redraws=10_000, violations=1080, savings=0.0, delta=0.1).holds
    assert not Verdict(redraws=100, violations=20, savings=0.0, delta=0.1).holds
