import numpy as np
import pytest

from common.criteria import softmax
from results.curves import Answers, one_threshold, point, threshold_per_exit
from results.trained import Trained

COSTS = np.array([0.2, 0.6, 1.0])


def answers(rows: int = 400, seed: int = 0, *, surest: bool = False) -> Answers:
    """Three exits, each righter than the one before."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 4, rows)
    logits_ENC = rng.normal(0, 1, (3, rows, 4))
    for number, strength in enumerate((1.0, 2.0, 3.0)):
        logits_ENC[number, np.arange(rows), labels_N] += strength
    probs_ENC = np.stack([softmax(logits_NC) for logits_NC in logits_ENC])
    return Answers(probs_ENC=probs_ENC, labels_N=labels_N, cost_E=COSTS, surest=surest)


def test_thresholds_keep_to_the_budget() -> None:
    rows = answers()
    one, several = one_threshold(rows, 0.5), threshold_per_exit(rows, 0.5)
    found = [rows.outcome(thresholds) for thresholds in (one, several)]
    assert all(cost <= 0.5 for _, cost in found)
    assert found[1][0].mean() >= found[0][0].mean() > answers().outcome([0.0] * 3)[0].mean()


def test_more_budget_is_never_worse_on_the_rows_it_was_chosen_on() -> None:
    rows = answers()
    right = [rows.outcome(one_threshold(rows, budget))[0].mean() for budget in (0.25, 0.5, 0.75, 1.0)]
    assert right == sorted(right)


def test_a_row_that_no_exit_is_sure_of_gets_the_surest_answer() -> None:
    rows, last = answers(surest=True), answers()
    nobody = [1.1] * 3
    surest_N = rows.probs_ENC.max(axis=2).argmax(axis=0)
    wanted_N = rows.probs_ENC[surest_N, np.arange(400)].argmax(axis=1) == rows.labels_N
    assert (rows.outcome(nobody)[0] == wanted_N).all() and rows.outcome(nobody)[1] == 1.0
    assert (last.outcome(nobody)[0] == (last.probs_ENC[2].argmax(axis=1) == last.labels_N)).all()


def test_a_point_is_measured_on_other_rows() -> None:
    rows, test = answers(), answers(seed=1)
    found = point(rows, test, one_threshold(rows, 0.5))
    assert found["calibration_cost"] <= 0.5
    assert found["cost"] == pytest.approx(test.outcome(found["thresholds"])[1])
    beside = point(rows, test, found["thresholds"], test.right_EN[-1])
    assert beside["gap"] == pytest.approx(test.right_EN[-1].mean() - found["accuracy"])
    assert beside["low"] <= beside["gap"] <= beside["upper"] <= beside["high"]


def test_what_was_passed_helps_an_exit() -> None:
    """Exits that err by themselves: together they know more."""
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, 3, 900)
    logits_ENC = rng.normal(0, 1, (3, 900, 3))
    logits_ENC[:, np.arange(900), labels_N] += 1.0
    parts = {"tune": slice(450), "test": slice(450, None)}
    found = Trained(
        logits={name: logits_ENC[:, rows] for name, rows in parts.items()},
        gates={},
        labels={name: labels_N[rows] for name, rows in parts.items()},
        flops_E=COSTS,
        whole=1.0,
    )
    alone, together = (found.answers("test", combined=combined) for combined in (False, True))
    assert together.right_EN[2].mean() > alone.right_EN[2].mean() + 0.05
    assert (together.right_EN[0].mean(), together.sure_EN[0].mean()) == pytest.approx(
        (alone.right_EN[0].mean(), alone.sure_EN[0].mean()), abs=0.05
    )
    assert together.probs_ENC.sum(axis=2) == pytest.approx(1.0)
