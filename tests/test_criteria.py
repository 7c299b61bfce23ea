import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from common.criteria import CRITERIA, Outputs, log_softmax, softmax, softmax_row
from common.types import Tensors

logits = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.floats(-50, 50, width=32),
)
temperatures = st.floats(0.25, 8.0)


@given(logits, temperatures)
def test_softmax_is_a_distribution_and_rows_agree_with_batches(z_BC: np.ndarray, temperature: float) -> None:
    probs_BC = softmax(z_BC, temperature)
    assert np.allclose(probs_BC.sum(axis=1), 1, atol=1e-5)
    for z_C, probs_C in zip(z_BC, probs_BC, strict=True):
        label, probs = softmax_row(z_C.tolist(), temperature)
        assert np.allclose(probs, probs_C, atol=1e-5)
        assert label == z_C.argmax()


@given(logits, temperatures)
def test_log_softmax_is_its_logarithm(z_BC: np.ndarray, temperature: float) -> None:
    found = log_softmax(z_BC, temperature)
    assert found.dtype == np.float32 and (found <= 0).all() and (found >= -87).all()
    assert np.allclose(np.exp(found), softmax(z_BC, temperature), atol=1e-5)


def test_softmax_does_not_overflow() -> None:
    huge = np.array([[1e38, -1e38, 0.0]], np.float32)
    assert log_softmax(huge)[0].tolist() == [0, -87, -87]
    assert softmax(huge)[0].tolist() == softmax_row(huge[0].tolist())[1] == [1, 0, 0]


def outputs_of(z_BC: np.ndarray) -> Outputs:
    return Outputs.of(z_BC, gate_B=z_BC[:, 0])


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA.keys())
class TestEveryCriterion:
    @given(z_BC=logits, threshold=st.floats(0, 1) | st.sampled_from([1.0, 2.0]))
    def test_one_row_is_decided_like_a_batch(self, criterion, z_BC, threshold) -> None:
        outputs = outputs_of(z_BC)
        accepted_B, state = criterion.decide(outputs, {}, np.full(len(z_BC), threshold))
        scores_B, _ = criterion.score(outputs, {})
        assert {name: value.dtype.name for name, value in state.items()} == criterion.state
        for b, score in enumerate(scores_B):
            if abs(score - threshold) > 1e-5:
                alone = Outputs.of(z_BC[b : b + 1], gate_B=z_BC[b : b + 1, 0])
                assert criterion.decide(alone, {}, np.array([threshold]))[0][0] == accepted_B[b]
                if criterion.by_row:
                    assert criterion.accepts(outputs.probs_BC[b].tolist(), threshold) == accepted_B[b]

    @given(z_BC=logits)
    def test_nan_never_accepts_and_accept_all_always_does(self, criterion, z_BC) -> None:
        outputs = outputs_of(z_BC)
        for threshold, expected in ((math.nan, False), (criterion.accept_all, True)):
            accepted_B, _ = criterion.decide(outputs, {}, np.full(len(z_BC), threshold))
            assert (accepted_B == expected).all()
            if criterion.by_row:
                assert criterion.accepts(outputs.probs_BC[0].tolist(), math.nan) is False

    @given(z_BC=logits, a=st.floats(0, 1), b=st.floats(0, 1))
    def test_a_stricter_threshold_accepts_no_more(self, criterion, z_BC, a, b) -> None:
        strict, loose = (max(a, b), min(a, b)) if criterion.stricter_is_higher else (min(a, b), max(a, b))
        outputs = outputs_of(z_BC)
        few, _ = criterion.decide(outputs, {}, np.full(len(z_BC), strict))
        many, _ = criterion.decide(outputs, {}, np.full(len(z_BC), loose))
        assert not (few & ~many).any()

    def test_thresholds_out_of_range(self, criterion) -> None:
        criterion.check(math.nan)
        criterion.check(criterion.accept_all)
        criterion.check(1.0 if criterion.decimals == 0 else 0.5)
        for threshold in (-0.1, 1.1, math.inf, 0.0 if criterion.decimals == 0 else 2.0):
            with pytest.raises(ValueError, match=r"must (lie between 0 and 1|be a whole number from 1)\."):
                criterion.check(threshold)


@given(arrays.arrays(np.float32, st.integers(1, 20), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_a_gate_is_a_sigmoid_and_never_accepts_where_there_is_none(gate_B: np.ndarray) -> None:
    z_BC = np.zeros((len(gate_B), 3), np.float32)
    scores_B, _ = CRITERIA["gate"].score(Outputs.of(z_BC, gate_B=gate_B), {})
    with np.errstate(over="ignore"):
        assert np.allclose(scores_B, 1 / (1 + np.exp(-gate_B.astype(np.float64))), atol=1e-6)
    accepted_B, _ = CRITERIA["gate"].decide(Outputs.of(z_BC), {}, np.zeros(len(gate_B)))
    assert not accepted_B.any()


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=6))
def test_patience_counts_exits_in_a_row(answers_EB: list[list[int]]) -> None:
    state: Tensors = {}
    for exit, answers_B in enumerate(answers_EB):
        scores_B, state = CRITERIA["patience"].score(Outputs.of(np.eye(3, dtype=np.float32)[answers_B]), state)
        for b, score in enumerate(scores_B):
            said = [earlier[b] for earlier in answers_EB[: exit + 1]]
            assert score == next((back for back in range(1, exit + 1) if said[-1 - back] != said[-1]), exit + 1)
