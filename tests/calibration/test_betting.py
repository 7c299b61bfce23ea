import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import binomial
from calibration.betting import log_growth, log_wealth, tolerant_bet, upper_limit

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
some_losses = st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=60).map(np.array)
ternary = st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=200).map(np.array)
bets = st.floats(0.0, 3.0)
deltas = st.sampled_from([0.01, 0.1, 0.3])


def played_on_gains(losses: np.ndarray, mean: float, bet: float) -> float:
    """The second implementation, in the paper's own form: gains Y = (1 - X) / 2 in [0, 1], row after row.

    The null is E[Y] <= m', a bet l' may be at most 1 / m', and the capital is multiplied by 1 + l' (Y - m').
    """
    low = (1.0 - mean) / 2.0
    stake = min(2.0 * bet, 0.999 / low)
    capital = 1.0
    for loss in losses:
        capital *= 1.0 + stake * ((1.0 - loss) / 2.0 - low)
    return capital


def scanned_limit(losses: np.ndarray, delta: float, bet: float, step: float) -> float:
    """The upper limit by walking down a grid until a game is not won."""
    limit = 1.0
    for mean in np.arange(1.0 - step, -1.0, -step):
        if played_on_gains(losses, float(mean), bet) < 1.0 / delta:
            break
        limit = float(mean)
    return limit


@given(losses=some_losses, mean=st.floats(-1.0, 0.99), bet=bets)
def test_the_same_game_on_gains(losses: np.ndarray, mean: float, bet: float) -> None:
    assert math.exp(log_wealth(losses, mean, bet)) == pytest.approx(played_on_gains(losses, mean, bet), rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(losses=some_losses, bet=bets, delta=deltas)
def test_the_same_limit_on_a_grid(losses: np.ndarray, bet: float, delta: float) -> None:
    limit = upper_limit(losses, delta, bet)
    assert limit <= scanned_limit(losses, delta, bet, 0.01) + 1e-9 <= limit + 0.01 + 1e-8


@settings(deadline=None, max_examples=25)
@given(losses=ternary, delta=deltas)
def test_the_same_limit_in_whole_numbers(losses: np.ndarray, delta: float) -> None:
    """Capital as a fraction of whole numbers: above the limit it reaches 1/delta, below it does not."""
    bet = tolerant_bet(len(losses), 0.2, delta)
    limit = upper_limit(losses, delta, bet)
    for step, won in ((1e-9, True), (-1e-9, False)):
        mean = Fraction(limit + step)
        if mean >= 1:
            continue
        stake = min(Fraction(bet), Fraction(0.999) / (1 - mean))
        capital = math.prod(((1 + stake * (mean - int(loss))) for loss in losses), start=Fraction(1))
        assert (capital >= 1 / Fraction(delta)) is won


@given(losses=some_losses, bet=bets, delta=deltas, at=st.integers(0, 1000), rise=st.floats(0.0, 2.0))
def test_a_higher_loss_never_lowers_the_limit(
    losses: np.ndarray, bet: float, delta: float, at: int, rise: float
) -> None:
    higher = losses.copy()
    higher[at % len(losses)] = min(1.0, higher[at % len(losses)] + rise)
    assert upper_limit(higher, delta, bet) >= upper_limit(losses, delta, bet) - 1e-11


@given(losses=some_losses, bet=bets, delta=deltas)
def test_order_does_not_matter_and_certainty_costs(losses: np.ndarray, bet: float, delta: float) -> None:
    limit = upper_limit(losses, delta, bet)
    assert upper_limit(losses[::-1], delta, bet) == pytest.approx(limit, abs=1e-9)
    assert upper_limit(losses, delta / 3, bet) >= limit - 1e-11
    assert limit >= losses.mean() - 1e-9


@given(losses=some_losses, bet=bets, low=st.floats(-1.0, 0.9), gap=st.floats(0.0, 0.09))
def test_capital_rises_with_the_mean(losses: np.ndarray, bet: float, low: float, gap: float) -> None:
    assert log_wealth(losses, low, bet) <= log_wealth(losses, low + gap, bet) + 1e-9


@given(losses=some_losses, bet=bets, epsilon=st.floats(-0.5, 0.9), delta=deltas)
def test_test_and_limit_say_the_same(losses: np.ndarray, bet: float, epsilon: float, delta: float) -> None:
    won = log_wealth(losses, epsilon, bet) >= math.log(1 / delta)
    limit = upper_limit(losses, delta, bet)
    assert (limit <= epsilon + 1e-9) if won else (limit >= epsilon - 1e-9)


@given(losses=st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=150).map(np.array), bet=bets, delta=deltas)
def test_on_0_and_1_the_exact_limit_is_never_beaten(losses: np.ndarray, bet: float, delta: float) -> None:
    exact = binomial.upper_limit(int(losses.sum()), len(losses), delta)
    assert upper_limit(losses, delta, bet) >= exact - 1e-9


@given(rows=st.integers(1, 3000), mean=st.floats(0.01, 0.5), delta=deltas, gains=st.floats(0.0, 0.2))
def test_the_bet_bears_as_many_losses_as_any(rows: int, mean: float, delta: float, gains: float) -> None:
    def borne(bet: float) -> float:
        still, worse, better = log_growth(np.array([0.0, 1.0, -1.0]), mean, bet)
        return float((rows * still + rows * gains * (better - still) - math.log(1 / delta)) / (still - worse))

    best = borne(tolerant_bet(rows, mean, delta, gains))
    for share in (0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999):
        assert borne(share * 0.999 / (1 - mean)) <= best + 1e-3 * max(1.0, abs(best))


LAWS: dict[str, tuple[float, Draw]] = {
    "rare losses": (0.03, lambda rng, size: (rng.random(size) < 0.03).astype(float)),
    "gains pay": (0.01, lambda rng, size: rng.choice([-1.0, 0.0, 1.0], size, p=[0.04, 0.91, 0.05])),
    "always at the ends": (0.2, lambda rng, size: np.where(rng.random(size) < 0.6, 1.0, -1.0)),
    "evenly spread": (0.0, lambda rng, size: rng.uniform(-1, 1, size)),
    "no losses at all": (-0.3, lambda rng, size: np.where(rng.random(size) < 0.3, -1.0, 0.0)),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rows", [1, 40, 400])
@pytest.mark.parametrize("gains", [0.0, 0.1])
def test_wrong_in_at_most_delta_of_all_draws(law: str, rows: int, gains: float) -> None:
    """The seed is fixed. At exactly delta, one draw of seeds in 10,000 would fail; bets are coarser than that."""
    mean, draw = LAWS[law]
    delta, draws = 0.1, 4000
    losses = draw(np.random.default_rng(rows), (draws, rows))
    for assumed in {mean, 0.05}:  # the limit must hold whatever the bet was aimed at
        bet = tolerant_bet(rows, assumed, delta, gains)
        wrong = int((log_growth(losses, mean, bet).sum(axis=1) >= math.log(1 / delta)).sum())
        assert binomial.lower_limit(wrong, draws, 1e-4) <= delta


def test_bets_that_look_ahead_would_be_seen() -> None:
    """Who sits out three losses of four wins too often: the check above has teeth."""
    mean, draw = LAWS["gains pay"]
    delta, draws, rows = 0.1, 4000, 400
    rng = np.random.default_rng(5)
    losses = draw(rng, (draws, rows))
    losses[(losses == 1.0) & (rng.random(losses.shape) < 0.75)] = mean
    wrong = int((log_growth(losses, mean, tolerant_bet(rows, mean, delta)).sum(axis=1) >= math.log(1 / delta)).sum())
    assert binomial.lower_limit(wrong, draws, 1e-4) > delta


def test_edges() -> None:
    assert upper_limit(np.zeros(0), 0.1, 1.0) == 1.0
    assert upper_limit(np.ones(50), 0.1, 1.0) == 1.0
    assert upper_limit(np.array([0.0]), 0.1, 99.0) == pytest.approx(0.9, abs=1e-3)
    assert upper_limit(np.array([0.0]), 0.1, 0.0) == 1.0  # who bets nothing wins nothing
    assert upper_limit(-np.ones(1000), 0.1, 0.5) < -0.99
    assert upper_limit(np.zeros(100), 0.1, 9.0) == pytest.approx(binomial.smallest_epsilon(100, 0.1), rel=2e-3)


@pytest.mark.parametrize("losses", [[1.01], [-1.5, 0.0], [math.nan]])
def test_losses_out_of_range_are_refused(losses: list[float]) -> None:
    with pytest.raises(ValueError, match="between -1 and 1"):
        upper_limit(np.array(losses), 0.1, 0.5)


def test_games_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="mean is 1"):
        log_growth(np.zeros(3), 1.0, 0.5)
    with pytest.raises(ValueError, match="mean is 1"):
        tolerant_bet(10, 1.0, 0.1)
    with pytest.raises(ValueError, match="bet is -1"):
        log_growth(np.zeros(3), 0.1, -1.0)
    with pytest.raises(ValueError, match="Delta is 0"):
        upper_limit(np.zeros(3), 0.0, 0.5)
