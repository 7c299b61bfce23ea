from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.risks import RISKS, Answered, risk_named
from common.errors import ConfigError
from tests.calibration.judged import judge_rows

names = st.sampled_from(sorted(RISKS))


def test_losses_by_hand() -> None:
    rows = Answered(
        answers=np.array([[1, 1, 0, 2], [1, 0, 0, 0]]),
        reference_N=np.array([1, 0, 1, 0]),
        labels_N=np.array([1, 0, 0, 1]),
    )
    assert risk_named("disagreement").losses(rows).tolist() == [[0, 1, 1, 1], [0, 0, 1, 0]]
    assert risk_named("accuracy-gap").losses(rows).tolist() == [[0, 1, -1, 0], [0, 0, -1, 0]]


@given(seed=st.integers(0, 10**6))
def test_disagreement_bounds_the_gap(seed: int) -> None:
    rows = judge_rows(50, seed).rows
    gap, differs = (risk_named(name).losses(rows) for name in ("accuracy-gap", "disagreement"))
    assert (np.abs(gap) <= differs).all()
    right = rows.answers == rows.labels_N
    assert np.allclose(gap.mean(axis=1), (rows.reference_N == rows.labels_N).mean() - right.mean(axis=1))


@given(name=names, seed=st.integers(0, 10**6), rows=st.integers(1, 400), delta=st.sampled_from([0.01, 0.1]))
def test_test_and_limit_say_the_same(name: str, seed: int, rows: int, delta: float) -> None:
    risk = risk_named(name)
    losses = risk.losses(judge_rows(rows, seed).rows)[0]
    for epsilon in (0.03, 0.3):
        limit = risk.limit(losses, epsilon, delta, 0.01)
        if abs(limit - epsilon) > 1e-9:
            assert risk.test(rows, epsilon, delta, 0.01).rejects(losses) is bool(limit < epsilon)


@given(name=names, rows=st.integers(1, 400), at=st.integers(0, 400), seed=st.integers(0, 99))
def test_a_loss_more_never_lowers_the_limit(name: str, rows: int, at: int, seed: int) -> None:
    risk = risk_named(name)
    losses = risk.losses(judge_rows(rows, seed).rows)[0]
    worse = losses.copy()
    worse[at % rows] = 1.0
    assert risk.limit(worse, 0.05, 0.1) >= risk.limit(losses, 0.05, 0.1) - 1e-11


@pytest.mark.parametrize("name", RISKS)
def test_extremes(name: str) -> None:
    risk = risk_named(name)
    assert risk.limit(np.zeros(0), 0.05, 0.1) == 1.0
    assert risk.limit(np.ones(30), 0.05, 0.1) == 1.0
    assert risk.limit(np.full(3000, risk.lowest), 0.05, 0.1) < 0.002
    assert not risk.test(1, 0.5, 0.1).rejects(np.zeros(1))
    assert risk.test(1, 0.95, 0.1).rejects(np.zeros(1))


def test_the_gap_needs_labels_and_the_disagreement_does_not() -> None:
    rows = replace(judge_rows(20, 0).rows, labels_N=None)
    assert risk_named("disagreement").losses(rows).shape == (3, 20)
    with pytest.raises(ConfigError, match="accuracy gap needs labels"):
        risk_named("accuracy-gap").losses(rows)


def test_an_unknown_risk_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"risk is 'luck'\. It must be one of accuracy-gap, disagreement"):
        risk_named("luck")
