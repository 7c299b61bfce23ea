import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.thresholds import (
    ExitScores,
    accepts,
    candidates,
    choose,
    criterion_named,
    exits_taken,
    outcome,
)
from common.criteria import CRITERIA, Outputs
from common.errors import ConfigError
from common.types import Tensors

FLOPS = np.array([1.0, 4.0, 20.0])
criteria = st.sampled_from(sorted(CRITERIA))


def _split(seed: int, criterion: str, rows: int = 300) -> tuple[ExitScores, np.ndarray]:
    """Three exits, each better than the one before, with the criterion's own scores."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, rows)
    outputs = []
    for skill in (1.5, 2.5, 4.0):
        logits = rng.normal(0, 1, (rows, 4)).astype(np.float32)
        logits[np.arange(rows), labels] += skill
        outputs.append(Outputs.of(logits, gate_B=logits.max(axis=1) - 1))
    return ExitScores.scored(outputs, CRITERIA[criterion]), labels


def _choose(seed: int, criterion: str, **changes: float) -> tuple[tuple[float, ...], ExitScores, np.ndarray]:
    scores, labels = _split(seed, criterion)
    return _chosen(criterion, scores, labels, **{"target_drop": 0.05, **changes}), scores, labels


def _chosen(criterion: str, scores: ExitScores, labels: np.ndarray, **changes: float) -> tuple[float, ...]:
    how: dict[str, Any] = {"target_drop": 0.001, "confidence": 0.9, "count": 8, **changes}
    flops = FLOPS[len(FLOPS) - len(scores.scores_EN) :]
    return choose(CRITERIA[criterion], scores, scores, scores.labels_EN[-1], labels, flops, **how)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), criterion=criteria)
def test_a_larger_drop_is_never_dearer_and_never_broken(seed: int, criterion: str) -> None:
    costs = []
    for target in (0.0, 0.02, 0.05, 0.2):
        thresholds, scores, labels = _choose(seed, criterion, target_drop=target)
        found = outcome(scores, labels, CRITERIA[criterion], thresholds, FLOPS)
        last = (scores.labels_EN[-1] == labels).mean()
        assert last - found.accuracy <= target + 1e-9
        costs.append(found.mean_flops)
    assert costs == sorted(costs, reverse=True)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), criterion=criteria)
def test_more_confidence_is_never_cheaper(seed: int, criterion: str) -> None:
    costs = []
    for confidence in (0.5, 0.9, 0.999):
        thresholds, scores, labels = _choose(seed, criterion, confidence=confidence)
        costs.append(outcome(scores, labels, CRITERIA[criterion], thresholds, FLOPS).mean_flops)
    assert costs == sorted(costs)


@given(seed=st.integers(0, 1000), criterion=criteria)
def test_candidates_run_from_never_to_always(seed: int, criterion: str) -> None:
    scores, _ = _split(seed, criterion)
    rule = CRITERIA[criterion]
    ladder = candidates(rule, scores.scores_EN[0], 10)
    counts = [int(accepts(rule, scores.scores_EN[0], threshold).sum()) for threshold in ladder]
    assert math.isnan(ladder[0]) and ladder[-1] == rule.accept_all
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, scores.scores_EN.shape[1])
    for threshold in ladder:
        rule.check(threshold)


@given(seed=st.integers(0, 1000), criterion=criteria, limits=st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_exits_are_taken_as_a_tier_would_decide(seed: int, criterion: str, limits: list[float]) -> None:
    rng = np.random.default_rng(seed)
    rule = CRITERIA[criterion]
    outputs = [Outputs.of(z, gate_B=z[:, 0]) for z in rng.normal(0, 2, (3, 40, 4)).astype(np.float32)]
    thresholds = (*limits, rule.accept_all)
    wanted = np.full(40, 2)
    state: Tensors = {}
    for number in (0, 1):
        accepted, state = rule.decide(outputs[number], state, np.full(40, thresholds[number]))
        wanted[accepted & (wanted == 2)] = number
    assert np.array_equal(exits_taken(rule, ExitScores.scored(outputs, rule).scores_EN, thresholds), wanted)


def test_nothing_safe_means_the_last_exit_answers_all() -> None:
    labels = np.zeros(50, np.int64)
    scores = ExitScores(scores_EN=np.full((2, 50), 0.9), labels_EN=np.array([np.ones(50), np.zeros(50)]))
    thresholds = _chosen("max-probability", scores, labels)
    assert math.isnan(thresholds[0]) and thresholds[1] == 0.0


def test_few_rows_are_not_enough_for_a_small_drop() -> None:
    """With 20 rows and not one difference, a drop of 0.1 points cannot be vouched for."""
    labels = np.zeros(20, np.int64)
    scores = ExitScores(scores_EN=np.full((2, 20), 0.9), labels_EN=np.zeros((2, 20)))
    assert math.isnan(_chosen("max-probability", scores, labels)[0])


def test_no_rows_are_refused() -> None:
    empty = ExitScores(scores_EN=np.zeros((2, 0)), labels_EN=np.zeros((2, 0)))
    with pytest.raises(ConfigError, match="no rows to choose thresholds on"):
        _chosen("margin", empty, np.zeros(0))


def test_one_exit_needs_no_choice() -> None:
    scores, labels = _split(0, "margin")
    one = ExitScores(scores_EN=scores.scores_EN[-1:], labels_EN=scores.labels_EN[-1:])
    assert _chosen("margin", one, labels) == (0.0,)


def test_hundreds_of_rows_do_not_show_what_they_cannot() -> None:
    """120 rows without one difference leave open a drop of 1.9 points, and an approximate limit says 1.05."""
    labels = np.zeros(120, np.int64)
    scores = ExitScores(scores_EN=np.full((2, 120), 0.9), labels_EN=np.zeros((2, 120)))
    assert math.isnan(_chosen("max-probability", scores, labels, target_drop=0.0189)[0])
    assert _chosen("max-probability", scores, labels, target_drop=0.0191)[0] <= 0.9


def test_outcome_of_an_exit_that_nobody_takes() -> None:
    scores, labels = _split(1, "max-probability")
    found = outcome(scores, labels, CRITERIA["max-probability"], (math.nan, math.nan, 0.0), FLOPS)
    assert found.exit_rates == (0.0, 0.0, 1.0)
    assert found.exit_accuracy[:2] == (None, None)
    assert found.mean_flops == 20.0


def test_an_unknown_criterion_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"'entropi'\. It must be one of entropy, gate, margin, max-probability, patience"
    ):
        criterion_named("entropi")
