"""The exact limit of a drop, held against the trinomial law itself and against limits of one share."""

import math
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import binomial
from calibration.intervals import drop_upper_limit
from calibration.matched import drop_limit, drop_shown, least_drop, rows_needed


@lru_cache(maxsize=8)
def _limits(rows: int, confidence: float) -> dict[tuple[int, int], float]:
    cells = ((x, y) for x in range(rows + 1) for y in range(rows + 1 - x))
    return {cell: drop_limit(*cell, rows, confidence) for cell in cells}


def _covered(limits: dict[tuple[int, int], float], rows: int, p: float, q: float) -> float:
    """Probability that the limit is at least p - q: every outcome counted, by the trinomial law."""
    total = 0.0
    for (x, y), limit in limits.items():
        if limit >= p - q - 1e-9:
            ways = math.comb(rows, x) * math.comb(rows - x, y)
            total += ways * p**x * q**y * (1.0 - p - q) ** (rows - x - y)
    return total


@pytest.mark.parametrize(("rows", "confidence"), [(5, 0.6), (9, 0.9), (12, 0.9), (9, 0.99)])
def test_the_limit_holds_as_often_as_promised_wherever_the_truth_lies(rows: int, confidence: float) -> None:
    limits = _limits(rows, confidence)
    covered = [
        _covered(limits, rows, p, q)
        for p in np.linspace(0.0, 1.0, 41)
        for q in np.linspace(0.0, 1.0 - p, 21)
        if p + q < 1.0 + 1e-12
    ]
    assert min(covered) >= confidence - 1e-6
    assert min(covered) <= confidence + 0.05  # and not by giving nothing


def test_the_check_notices_a_limit_that_is_too_low() -> None:
    approximate = {cell: drop_upper_limit(*cell, 12, 0.9) for cell in _limits(12, 0.9)}
    assert min(_covered(approximate, 12, p, 0.0) for p in np.linspace(0.01, 0.3, 20)) < 0.8


@pytest.mark.parametrize(("rows", "confidence"), [(9, 0.9), (9, 0.99)])
def test_another_loss_never_lowers_the_limit_and_another_gain_never_raises_it(rows: int, confidence: float) -> None:
    limits = _limits(rows, confidence)
    for (x, y), limit in limits.items():
        assert limits.get((x + 1, y), 1.0) >= limit - 2e-6
        assert limits.get((x, y + 1), -1.0) <= limit + 2e-6


@settings(max_examples=30, deadline=None)
@given(worse=st.integers(0, 12), rows=st.integers(40, 6000), confidence=st.sampled_from([0.8, 0.9, 0.99]))
def test_without_gains_it_is_the_exact_limit_of_one_share(worse: int, rows: int, confidence: float) -> None:
    exact = binomial.upper_limit(worse, rows, 1.0 - confidence)
    found = drop_limit(worse, 0, rows, confidence)
    assert exact - 1e-12 <= found <= exact * 1.001 + 2e-6


@settings(max_examples=20, deadline=None)
@given(worse=st.integers(0, 25), better=st.integers(0, 25), rows=st.integers(60, 6000))
def test_it_lies_near_the_approximate_limit(worse: int, better: int, rows: int) -> None:
    found, approximate = drop_limit(worse, better, rows, 0.9), drop_upper_limit(worse, better, rows, 0.9)
    assert approximate - 0.5 / rows < found <= approximate + 1.5 / rows
    assert found <= binomial.upper_limit(worse, rows, 0.1) * 1.001 + 2e-6  # gains never count against


def test_what_no_difference_shows() -> None:
    assert drop_limit(0, 0, 120, 0.9) == pytest.approx(0.0190, abs=5e-5)
    assert least_drop(120, 0.9) == pytest.approx(0.0190, abs=5e-5)
    for drop in (0.001, 0.005, 0.3):
        needed = rows_needed(drop, 0.9)
        assert least_drop(needed, 0.9) <= drop < least_drop(needed - 1, 0.9)
        assert drop_shown(0, 0, needed, drop, 0.9) and not drop_shown(0, 0, needed - 1, drop, 0.9)


def test_gains_beyond_losses_show_a_negative_drop() -> None:
    assert drop_shown(0, 40, 1000, 0.0, 0.9) and not drop_shown(3, 4, 1000, 0.0, 0.9)
    assert drop_limit(0, 40, 1000, 0.9) < -0.02


def test_at_the_ends() -> None:
    assert drop_limit(0, 0, 0, 0.9) == 1.0
    assert drop_limit(10, 0, 10, 0.9) == 1.0
    assert drop_shown(10, 0, 10, 1.0, 0.9)
    assert -1.0 < drop_limit(0, 10, 10, 0.9) < -0.5
