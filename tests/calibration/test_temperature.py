import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.temperature import HIGHEST, LOWEST, cross_entropy, fit_temperature, prior_entropy


def _drawn(rows: int, seed: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels drawn from their own softmax: the right temperature is 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (rows, 5))
    gumbel = rng.gumbel(size=logits.shape)
    return logits, (logits + gumbel).argmax(axis=1)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_finds_the_factor_that_logits_were_multiplied_by(factor: float) -> None:
    logits, labels = _drawn(20_000, seed=0)
    assert fit_temperature(logits * factor, labels) == pytest.approx(factor, rel=0.05)


@given(seed=st.integers(0, 10_000), factor=st.floats(0.2, 5.0))
def test_no_temperature_nearby_is_better(seed: int, factor: float) -> None:
    logits, labels = _drawn(200, seed)
    best = fit_temperature(logits * factor, labels)
    assert LOWEST <= best <= HIGHEST
    loss = cross_entropy(logits * factor, labels, best)
    for other in (best * 0.97, best * 1.03, 1.0):
        if LOWEST <= other <= HIGHEST:
            assert loss <= cross_entropy(logits * factor, labels, other) + 1e-9


def test_cross_entropy_of_large_logits_is_finite() -> None:
    logits = np.array([[1e4, -1e4], [1e4, -1e4]], np.float32)
    assert cross_entropy(logits, np.array([0, 0])) == pytest.approx(0.0)
    assert cross_entropy(logits, np.array([1, 1])) == pytest.approx(2e4)


def test_perfect_logits_get_the_lowest_temperature() -> None:
    logits = np.eye(5)[np.arange(50) % 5] * 3.0
    assert fit_temperature(logits, np.arange(50) % 5) == pytest.approx(LOWEST, rel=1e-3)


def test_who_knows_only_how_frequent_the_classes_are_has_their_entropy() -> None:
    logits, labels = _drawn(400, 0)
    share = np.bincount(labels, minlength=5) / len(labels)
    constant = np.tile(np.log(share), (len(labels), 1))
    assert prior_entropy(labels) == pytest.approx(cross_entropy(constant, labels))
    assert cross_entropy(logits, labels, fit_temperature(logits, labels)) < 0.99 * prior_entropy(labels)
    assert prior_entropy(np.array([3, 3, 3])) == 0.0 and prior_entropy(np.array([0, 2])) == pytest.approx(np.log(2))
