"""What exits say together and to one another: against plain Python, and the same for a row alone as in a batch."""

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.criteria import CRITERIA
from common.manifest import COMBINE, Combination, Exit, FittedGate
from common.rule import Rule
from common.types import Tensors

CLASSES, EXITS = 4, 3
NAMES = ("bias", "log_odds", "entropy", "margin", "agreement")
seeds = st.integers(0, 10_000)
criteria = st.sampled_from(sorted(CRITERIA))
combine = st.sampled_from(COMBINE)


def make_rule(seed: int, criterion: str, combine: str) -> tuple[Rule, tuple[Exit, ...], tuple[FittedGate | None, ...]]:
    rng = np.random.default_rng(seed)
    exits = tuple(
        Exit(
            stage=k,
            logits=f"logits{k}",
            temperature=float(rng.uniform(0.5, 2.0)),
            combine=Combination(
                weights=tuple(rng.uniform(0, 1.5, k + 1).tolist()), bias=tuple(rng.normal(0, 0.5, CLASSES).tolist())
            ),
        )
        for k in range(EXITS)
    )
    gates: tuple[FittedGate | None, ...] = ()
    if criterion == "gate":
        gates = (*(FittedGate(**dict(zip(NAMES, rng.normal(0, 1, 5).tolist(), strict=True))) for _ in range(2)), None)
    return Rule(CRITERIA[criterion], exits, CLASSES, combine=combine, gates=gates), exits, gates


def run(rule: Rule, z_EBC: np.ndarray, thresholds: list[float]) -> list[Any]:
    """Per exit: what it says and which rows it accepts; state is what the rule announces."""
    state: Tensors = {}
    found = []
    for exit, z_BC in enumerate(z_EBC):
        assert set(state) == set(rule.state_before(exit))
        for name, spec in rule.state_before(exit).items():
            assert (state[name].dtype.name, state[name].shape) == (spec.dtype, (len(z_BC), *spec.shape))
            assert (state[name] >= spec.low).all() and (state[name] <= spec.high).all()
        said, accepted_B, state = rule.decide(exit, z_BC, None, state, np.full(len(z_BC), thresholds[exit]))
        found.append((said, accepted_B))
    assert state == {}
    return found


@given(seed=seeds, criterion=criteria, combine=combine)
def test_a_batch_decides_like_its_rows_and_like_plain_python(seed: int, criterion: str, combine: str) -> None:
    rule, exits, gates = make_rule(seed, criterion, combine)
    rng = np.random.default_rng(seed + 1)
    z_EBC = rng.normal(0, 3, (EXITS, 6, CLASSES)).astype(np.float32)
    thresholds = [2.0, 3.0, 1.0] if criterion == "patience" else [*rng.uniform(0.2, 0.8, 2).tolist(), 0.0]
    batch = run(rule, z_EBC, thresholds)
    for b in range(6):
        alone = run(rule, z_EBC[:, b : b + 1], thresholds)
        logs: list[list[float]] = []
        before, agreed = -1, 0
        for exit in range(EXITS):
            said, accepted_B = batch[exit]
            assert np.allclose(said.probs_BC[b], alone[exit][0].probs_BC[0], atol=1e-6)
            logs.append(_log_probs(z_EBC[exit, b].tolist(), exits[exit].temperature))
            answer = [math.exp(log) for log in logs[-1]]
            if combine == "all" or (combine == "early" and exit < EXITS - 1):
                answer = _together(logs, exits[exit])
            assert np.allclose(said.probs_BC[b], answer, atol=1e-4)
            label = int(said.labels_B[b])
            agreed = agreed + 1 if label == before else 1
            if exit == EXITS - 1:
                assert accepted_B[b] and alone[exit][1][0]
                continue
            score = _score(criterion, answer, agreed, gates[exit] if gates else None, label == before)
            before = label
            if abs(score - thresholds[exit]) > 1e-3 or criterion == "patience":
                wanted = score <= thresholds[exit] if criterion == "entropy" else score >= thresholds[exit]
                assert accepted_B[b] == alone[exit][1][0] == wanted


def _log_probs(z: list[float], temperature: float) -> list[float]:
    total = math.log(sum(math.exp(value / temperature) for value in z))
    return [value / temperature - total for value in z]


def _together(logs: list[list[float]], leave: Exit) -> list[float]:
    how = leave.combine
    assert how is not None
    powers = [
        math.exp(how.bias[c]) * math.prod(math.exp(p[c]) ** w for p, w in zip(logs, how.weights, strict=True))
        for c in range(CLASSES)
    ]
    return [power / sum(powers) for power in powers]


def _score(criterion: str, probs: list[float], agreed: int, gate: FittedGate | None, same: bool) -> float:
    entropy = -sum(p * math.log(p) for p in probs if p > 0) / math.log(len(probs))
    first, second = sorted(probs, reverse=True)[:2]
    if gate is None:
        scores = {"max-probability": first, "entropy": entropy, "margin": first - second, "patience": float(agreed)}
        return scores[criterion]
    logit = gate.bias + gate.log_odds * math.log(first / max(1 - first, 1e-6))
    logit += gate.entropy * entropy + gate.margin * (first - second) + gate.agreement * same
    return 1 / (1 + math.exp(-logit))


def test_state_travels_only_where_a_later_exit_needs_it() -> None:
    plain, _, _ = make_rule(0, "margin", "none")
    assert [plain.state_before(exit) for exit in range(EXITS)] == [{}, {}, {}]
    early, _, _ = make_rule(0, "margin", "early")
    assert [list(early.state_before(exit)) for exit in range(EXITS)] == [[], ["exits:log_probs"], []]
    every, _, _ = make_rule(0, "margin", "all")
    assert every.state_before(2)["exits:log_probs"].shape == (2, CLASSES)
    patience, _, _ = make_rule(0, "patience", "none")
    assert [sorted(patience.state_before(exit)) for exit in range(EXITS)] == [[], ["exits:agreed", "exits:label"], []]
    gates, _, _ = make_rule(0, "gate", "none")
    assert [list(gates.state_before(exit)) for exit in range(EXITS)] == [[], ["exits:label"], []]
