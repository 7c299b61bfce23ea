import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.combination import fit_combination, fit_combinations
from common.criteria import log_softmax
from common.manifest import Combination, Exit
from common.rule import together


def rows(seed: int, count: int = 400, classes: int = 4, exits: int = 3) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    noise = rng.normal(0, 1, (exits, count, classes))
    return [(np.eye(classes)[labels] * 2 + noise[k] * (1.5 - 0.3 * k)).astype(np.float32) for k in range(exits)], labels


def entropy(logs: np.ndarray, labels: np.ndarray, how: Combination) -> float:
    probs = together(logs, how)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(probs, 1e-30)).mean())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), classes=st.integers(2, 6), exits=st.integers(1, 4))
def test_is_no_worse_than_the_exit_alone_and_than_any_neighbour(seed: int, classes: int, exits: int) -> None:
    logits, labels = rows(seed, classes=classes, exits=exits)
    logs = np.stack([log_softmax(z) for z in logits], axis=1)
    how = fit_combination(logs, labels)
    assert len(how.weights) == exits and len(how.bias) == classes and min(how.weights) >= 0
    alone = Combination(weights=(*(0.0,) * (exits - 1), 1.0), bias=(0.0,) * classes)

    def cost(c: Combination) -> float:
        prior = sum((w - a) ** 2 for w, a in zip(c.weights, alone.weights, strict=True)) + sum(b**2 for b in c.bias)
        return entropy(logs, labels, c) + prior / 2 / len(labels)

    best = cost(how)
    assert best <= cost(alone) + 1e-6
    rng = np.random.default_rng(seed)
    for scale in (0.01, 0.1, 1.0):
        weights = np.maximum(np.array(how.weights) + rng.normal(0, scale, exits), 0)
        bias = np.array(how.bias) + rng.normal(0, scale, classes)
        assert best <= cost(Combination(weights=tuple(weights.tolist()), bias=tuple(bias.tolist()))) + 2e-5


def test_exits_that_err_apart_are_better_together_on_fresh_rows() -> None:
    logits, labels = rows(1, 2000)
    fresh, right = rows(2, 20_000)
    exits = [Exit(stage=k, logits=f"l{k}") for k in range(3)]
    how = fit_combinations(logits, exits, labels)[-1]
    logs = np.stack([log_softmax(z) for z in fresh], axis=1)
    alone = (fresh[-1].argmax(1) == right).mean()
    assert (together(logs, how).argmax(1) == right).mean() > alone + 0.01


def test_rows_that_are_all_right_have_a_minimum_too() -> None:
    labels = np.arange(60) % 3
    logs = np.stack([log_softmax((np.eye(3)[labels] * 50).astype(np.float32))] * 2, axis=1)
    how = fit_combination(logs, labels)
    assert np.isfinite([*how.weights, *how.bias]).all() and max(how.weights) < 10
