import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calibration.binomial import at_most, lower_limit, most_losses, smallest_epsilon, upper_limit

deltas = st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.5])


def exact_at_most(count: int, rows: int, p: Fraction) -> Fraction:
    """The second implementation: every term a fraction of whole numbers, nothing rounded."""
    return sum((math.comb(rows, j) * p**j * (1 - p) ** (rows - j) for j in range(count + 1)), Fraction(0))


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    rows = draw(st.integers(1, 120))
    return draw(st.integers(0, rows)), rows


@settings(deadline=None, max_examples=60)
@given(of=counts(), p=st.floats(0.0, 1.0))
def test_agrees_with_whole_numbers(of: tuple[int, int], p: float) -> None:
    assert at_most(*of, p) == pytest.approx(float(exact_at_most(*of, Fraction(p))), rel=1e-11, abs=1e-300)


@settings(deadline=None, max_examples=60)
@given(of=counts(), delta=deltas)
@example(of=(0, 1), delta=0.1)
@example(of=(1, 1), delta=0.1)
def test_the_limit_is_where_the_exact_tail_is_delta(of: tuple[int, int], delta: float) -> None:
    count, rows = of
    limit = upper_limit(count, rows, delta)
    if count == rows:
        assert limit == 1.0
        return
    for step, above in ((1e-9, True), (-1e-9, False)):
        tail = exact_at_most(count, rows, Fraction(min(limit + step, 1.0)))
        assert (tail <= Fraction(delta)) is above


def test_known_limits() -> None:
    """No losses: 1 - delta^(1/n). One of two: p with (1 - p^2) = delta. The rule of three."""
    assert upper_limit(0, 100, 0.1) == pytest.approx(1 - 0.1**0.01, rel=1e-12)
    assert upper_limit(1, 2, 0.1) == pytest.approx(math.sqrt(0.9), rel=1e-12)
    assert upper_limit(0, 1000, 0.05) == pytest.approx(3 / 1000, rel=5e-3)
    assert upper_limit(5, 100, 0.05) == pytest.approx(0.1022534, abs=1e-6)  # one-sided 95 % Clopper-Pearson
    assert lower_limit(5, 100, 0.05) == pytest.approx(0.0199056, abs=1e-6)


@given(of=counts(), delta=deltas)
def test_more_losses_and_more_certainty_raise_the_limit_and_more_rows_lower_it(
    of: tuple[int, int], delta: float
) -> None:
    count, rows = of
    limit = upper_limit(count, rows, delta)
    assert count / rows <= limit <= 1.0 and limit > 0.0
    if count < rows:
        assert upper_limit(count + 1, rows, delta) > limit
    assert upper_limit(count, rows + 1, delta) <= limit
    assert upper_limit(count, rows, delta / 2) >= limit


@given(rows=st.integers(0, 3000), epsilon=st.floats(0.0, 0.5), delta=deltas)
def test_test_and_limit_say_the_same(rows: int, epsilon: float, delta: float) -> None:
    most = most_losses(rows, epsilon, delta)
    assert -1 <= most < max(rows, 1)
    if most >= 0:
        assert upper_limit(most, rows, delta) <= epsilon + 1e-12
    if most + 1 <= rows:
        assert upper_limit(most + 1, rows, delta) > epsilon - 1e-12


@given(rows=st.integers(1, 100_000), delta=deltas)
def test_what_so_many_rows_can_show_at_best(rows: int, delta: float) -> None:
    smallest = smallest_epsilon(rows, delta)
    assert most_losses(rows, min(smallest * (1 + 1e-9), 0.9999999), delta) >= 0 or smallest > 0.99999
    assert most_losses(rows, smallest * (1 - 1e-9), delta) == -1
    assert smallest <= math.log(1 / delta) / rows


def test_without_rows_nothing_is_known() -> None:
    assert upper_limit(0, 0, 0.1) == 1.0 and lower_limit(0, 0, 0.1) == 0.0
    assert smallest_epsilon(0, 0.1) == 1.0 and most_losses(0, 0.5, 0.1) == -1


def test_stays_exact_for_many_rows() -> None:
    """The tail of 60,000 rows against the normal law, and far out against the largest term's logarithm."""
    rows, p = 60_000, 0.3
    deviation = math.sqrt(rows * p * (1 - p))
    for z in (-3.0, -1.0, 0.0, 2.0):
        normal = 0.5 * math.erfc(-z / math.sqrt(2))
        assert at_most(round(rows * p + z * deviation), rows, p) == pytest.approx(normal, abs=3e-3)
    assert at_most(0, rows, 0.001) == pytest.approx(math.exp(rows * math.log1p(-0.001)), rel=1e-12)
    assert at_most(rows - 1, rows, 0.5) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("rows", "p"), [(30, 0.02), (30, 0.5), (200, 0.01), (200, 0.1)])
@pytest.mark.parametrize("delta", [0.1, 0.01])
def test_covers_by_summation(rows: int, p: float, delta: float) -> None:
    """The exact probability that the limit falls short of p: no simulation, so nothing to tolerate."""
    short = sum(
        math.comb(rows, count) * p**count * (1 - p) ** (rows - count)
        for count in range(rows + 1)
        if upper_limit(count, rows, delta) < p
    )
    assert short <= delta * (1 + 1e-12)


@pytest.mark.parametrize(("count", "rows"), [(-1, 5), (6, 5), (0, -1)])
def test_impossible_counts_are_refused(count: int, rows: int) -> None:
    with pytest.raises(ValueError, match="is not a count"):
        upper_limit(count, rows, 0.1)


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, math.nan])
def test_impossible_levels_are_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="Delta is"):
        upper_limit(1, 5, delta)
    with pytest.raises(ValueError, match="Delta is"):
        most_losses(5, 0.1, delta)


def test_impossible_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match=r"probability is 1.5"):
        at_most(1, 5, 1.5)
    with pytest.raises(ValueError, match="Epsilon is 1"):
        most_losses(5, 1.0, 0.1)


def test_ends_of_the_range() -> None:
    assert at_most(3, 5, 0.0) == 1.0 and at_most(5, 5, 1.0) == 1.0 and at_most(4, 5, 1.0) == 0.0
    assert np.isclose(at_most(4, 5, 0.5), 1 - 0.5**5)
