import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.foresight import auroc
from calibration.gates import doubtful_gates, fit_gate, fit_gates
from calibration.served import Said
from common.criteria import CRITERIA, Outputs
from common.manifest import Exit, FittedGate
from common.rule import Rule, gate_features, gate_logit
from tests.calibration.judged import CLASSES


def said(rows: int, seed: int) -> tuple[Said, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    ease = rng.gamma(2.0, 0.8, (rows, 1))
    wrong = np.eye(CLASSES)[rng.integers(0, CLASSES, rows)] * rng.exponential(1.0, (rows, 1))
    logits = tuple(
        (np.eye(CLASSES)[labels] * ease * skill + wrong + rng.normal(0, noise, (rows, CLASSES))).astype(np.float32)
        for skill, noise in ((1.5, 1.2), (2.0, 1.0), (3.0, 0.6))
    )
    return Said(logits=logits, gates=(None, None, None)), labels


EXITS = [Exit(stage=k, logits=f"l{k}") for k in range(3)]


def test_tells_right_from_wrong_on_fresh_rows_at_least_as_well_as_the_largest_probability() -> None:
    tune, labels = said(2000, 1)
    gates = fit_gates(tune, EXITS, CLASSES, "none", labels)
    assert gates[2] is None
    fresh, right = said(20_000, 2)
    before = None
    for number in (0, 1):
        outputs = Outputs.of(fresh.logits[number])
        gate = gates[number]
        assert gate is not None
        good = outputs.labels_B == right
        found = auroc(gate_logit(gate, outputs, before), good)
        plain = auroc(outputs.probs_BC.max(axis=1), good)
        assert found >= plain - 0.002
        if number:
            assert gate.agreement > 0.1 and found > plain
        before = outputs.labels_B


def test_scores_are_honest_probabilities_of_being_right() -> None:
    tune, labels = said(4000, 3)
    gates = fit_gates(tune, EXITS, CLASSES, "none", labels)
    rule = Rule(CRITERIA["gate"], EXITS, CLASSES, gates=gates)
    output, _ = rule.says(0, tune.logits[0], None, {})
    scores, _ = rule.criterion.score(output, {})
    assert abs(scores.mean() - (output.labels_B == labels).mean()) < 0.01


def test_a_learned_gate_that_ranks_rows_worse_than_chance_is_told() -> None:
    plain, labels = said(2000, 4)
    right = [logits.argmax(axis=1) == labels for logits in plain.logits]
    gates = tuple(np.where(good, 1.0, -1.0).astype(np.float32) for good in right[:2])

    def notes(*gates: np.ndarray | None) -> list[str]:
        return doubtful_gates(Said(logits=plain.logits, gates=(*gates, None)), labels)

    assert notes(*gates) == notes(None, None) == []
    (shut,) = notes(-gates[0] - 5, gates[1])
    assert "gate of exit 0" in shut and "mostly shut; a larger training.cost" in shut
    (wide,) = notes(gates[0], -gates[1] + 5)
    assert "gate of exit 1" in wide and "mostly open; a smaller training.cost" in wide


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), rows=st.integers(1, 60), right=st.sampled_from(["all", "none", "some"]))
def test_few_rows_or_rows_of_one_kind_give_finite_gates(seed: int, rows: int, right: str) -> None:
    rng = np.random.default_rng(seed)
    features = gate_features(Outputs.of(rng.normal(0, 20, (rows, 3)).astype(np.float32)), None)
    kinds = {"all": np.ones(rows, bool), "none": np.zeros(rows, bool), "some": rng.random(rows) < 0.5}
    gate = fit_gate(features, kinds[right])
    assert np.isfinite([gate.bias, gate.log_odds, gate.entropy, gate.margin, gate.agreement]).all()
    assert gate.agreement == 0.0  # there is no exit before


def test_a_gate_that_the_network_has_is_left_alone() -> None:
    tune, labels = said(500, 1)
    own = [Exit(stage=0, logits="l0", gate="g0"), Exit(stage=1, logits="l1"), Exit(stage=2, logits="l2")]
    gates = fit_gates(tune, own, CLASSES, "none", labels)
    assert gates[0] is None and isinstance(gates[1], FittedGate) and gates[2] is None
    own[1] = Exit(stage=1, logits="l1", gate="g1")
    assert fit_gates(tune, own, CLASSES, "none", labels) == ()
