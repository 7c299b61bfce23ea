import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.intervals import (
    bootstrap,
    drop_upper_limit,
    gap_interval,
    gap_over_seeds,
    over_seeds,
    share_interval,
    student_quantile,
)


def test_shares_are_exact() -> None:
    found = share_interval(0, 100)
    assert found.low == 0.0 and found.high == pytest.approx(1 - 0.025 ** (1 / 100))
    some = share_interval(9949, 10000)
    assert some.low < 0.9949 < some.high and some.high - some.low < 0.003
    assert share_interval(0, 0).document() == [0.0, 1.0]


def test_a_share_lies_inside_as_often_as_promised() -> None:
    counts = np.random.default_rng(0).binomial(200, 0.93, 400)
    inside = [share_interval(int(count), 200).low <= 0.93 <= share_interval(int(count), 200).high for count in counts]
    assert np.mean(inside) >= 0.95


# the t table of any textbook, two-sided 95 %
@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)]
)
def test_student(freedom: int, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, abs=5e-5)
    assert student_quantile(0.5, freedom) == pytest.approx(0.0, abs=1e-6)


def test_seeds() -> None:
    found = over_seeds([99.4, 99.5, 99.45])
    assert found.mean == pytest.approx(99.45) and found.seeds == 3 and found.interval is not None
    assert found.interval.high - found.mean == pytest.approx(4.3027 * 0.05 / math.sqrt(3), rel=1e-4)
    assert over_seeds([99.4]).interval is None
    with pytest.raises(ValueError, match="no value"):
        over_seeds([])
    paired = gap_over_seeds([1.0, 2.0, 3.0], [0.5, 1.5, 2.5])
    assert paired.mean == 0.5 and paired.interval is not None
    assert paired.interval.high == pytest.approx(0.5)  # seeds differ, their differences do not


def test_a_gap_is_paired() -> None:
    rng = np.random.default_rng(1)
    theirs = rng.random(4000) < 0.9
    ours = theirs ^ (rng.random(4000) < 0.01)
    found = gap_interval(ours, theirs)
    assert found.low < ours.mean() - theirs.mean() < found.high
    alone = share_interval(int(ours.sum()), 4000)
    assert found.high - found.low < (alone.high - alone.low) / 2
    mirrored = gap_interval(theirs, ours)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_limit_of_agresti_and_min() -> None:
    # (b - c) / n + z * sqrt(b + c - (b - c)^2 / n) / n with half a row added to each of four cells
    b, c, n = 9.5, 4.5, 1002.0
    wanted = (b - c) / n + 1.2815515655446004 * math.sqrt(b + c - (b - c) ** 2 / n) / n
    assert drop_upper_limit(9, 4, 1000, 0.9) == pytest.approx(wanted)


@settings(deadline=None)
@given(worse=st.integers(0, 30), better=st.integers(0, 30), rows=st.integers(60, 5000))
def test_the_limit_lies_above_the_drop_and_grows_with_confidence(worse: int, better: int, rows: int) -> None:
    limits = [drop_upper_limit(worse, better, rows, confidence) for confidence in (0.8, 0.9, 0.99)]
    assert limits == sorted(limits)
    assert limits[1] > (worse - better) / rows - 1e-12
    assert drop_upper_limit(worse + 1, better, rows, 0.9) > limits[1]


def test_the_limit_covers() -> None:
    """Of many redraws with a known drop, about as many as promised lie below the limit."""
    rng = np.random.default_rng(0)
    worse, better, rows = 0.01, 0.004, 2000
    draws = rng.multinomial(rows, [worse, better, 1 - worse - better], size=4000)
    covered = np.mean([drop_upper_limit(int(b), int(c), rows, 0.9) >= worse - better for b, c, _ in draws])
    assert covered >= 0.88


def test_the_bootstrap_repeats_and_covers() -> None:
    values = np.random.default_rng(2).normal(3.0, 1.0, 500)
    found = bootstrap(lambda rows: float(values[rows].mean()), 500)
    assert found == bootstrap(lambda rows: float(values[rows].mean()), 500)
    assert found.low < values.mean() < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 / math.sqrt(500), rel=0.2)
