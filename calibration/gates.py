"""Learned gates for exits whose network has none: will this exit's answer be right?

A logistic regression on what the exit's class probabilities show, fitted to predict correctness, not calibrated
confidence, as Kubaty et al. advise ("Failure Prediction Is a Better Performance Proxy for Early-Exit Networks Than
Calibration", 2025). A learned rule of when to stop goes back to Bolukbasi et al., "Adaptive Neural Networks for
Efficient Inference" (2017).

Tensor names carry their axes: N rows of a split, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.foresight import auroc, nothing_gained
from calibration.notes import NOTE
from calibration.served import Said
from common.criteria import CRITERIA
from common.manifest import Exit, FittedGate
from common.rule import Rule, gate_features
from common.types import Array, Tensors

_STEPS = 50
_PRIOR = 1.0  # in rows
_DIGITS = 6


def fit_gates(
    said: Said, exits: Sequence[Exit], classes: int, combine: str, labels_N: Array
) -> tuple[FittedGate | None, ...]:
    """A gate for every early exit whose stage writes none, from the tune split; empty when none is due.

    Args:
        said: what every exit says about the split.
        exits: with their temperatures and combinations.
        classes: how many there are.
        combine: whether exits answer together; gates judge the answer that would be given.
        labels_N: right classes.
    """
    if all(leave.gate is not None for leave in exits[:-1]):
        return ()
    rule = Rule(CRITERIA["gate"], exits, classes, combine=combine)
    found: list[FittedGate | None] = []
    state: Tensors = {}
    before_N: Array | None = None
    for number, (logits_NC, leave) in enumerate(zip(said.logits, exits, strict=True)):
        output, state = rule.says(number, logits_NC, None, state)
        if leave.gate is None and number < len(exits) - 1:
            found.append(fit_gate(gate_features(output, before_N), output.labels_B == labels_N))
        else:
            found.append(None)
        before_N = output.labels_B
    return tuple(found)


def doubtful_gates(said: Said, labels_N: Array) -> list[str]:
    """A note for every learned gate that ranks rows worse than chance, as one does that training left shut or open."""
    right_EN = np.stack([logits_NC.argmax(axis=1) == labels_N for logits_NC in said.logits])
    notes: list[str] = []
    for number, gate_N in enumerate(said.gates[:-1]):
        if gate_N is None or not (ranks := auroc(gate_N, nothing_gained(right_EN, number))) < 0.5:
            continue
        state, cost = ("open", "smaller") if float((gate_N > 0.0).mean()) > 0.5 else ("shut", "larger")
        notes.append(
            f"{NOTE}the learned gate of exit {number} rather lets rows leave that should go on: AUROC {ranks:.2f}, "
            f"where guessing has 0.5. It is mostly {state}; a {cost} training.cost, or another criterion, helps."
        )
    return notes


def fit_gate(features_NF: Array, right_N: Array) -> FittedGate:
    """Logistic regression with a weak prior at 0, by Newton's method on standardised features."""
    mean_F, spread_F = features_NF.mean(axis=0), features_NF.std(axis=0)
    spread_F = np.where(spread_F > 1e-9, spread_F, 1.0)
    x_NF = np.column_stack([np.ones(len(right_N)), (features_NF - mean_F) / spread_F]).astype(np.float64)
    prior_F = np.full(x_NF.shape[1], _PRIOR)
    w_F = np.zeros(x_NF.shape[1])
    for _ in range(_STEPS):
        p_N = 1.0 / (1.0 + np.exp(-np.clip(x_NF @ w_F, -30.0, 30.0)))
        slope_F = x_NF.T @ (p_N - right_N) + prior_F * w_F
        curve_FF = (x_NF * (p_N * (1.0 - p_N))[:, None]).T @ x_NF + np.diag(prior_F)
        step_F = np.linalg.solve(curve_FF, slope_F)
        w_F = w_F - step_F * min(1.0, 5.0 / max(float(np.abs(step_F).max()), 1e-12))
        if np.abs(step_F).max() < 1e-8:
            break
    weights_F = w_F[1:] / spread_F
    bias = w_F[0] - float(weights_F @ mean_F)
    numbers = [round(float(number), _DIGITS) + 0.0 for number in (bias, *weights_F)]
    return FittedGate(bias=numbers[0], log_odds=numbers[1], entropy=numbers[2], margin=numbers[3], agreement=numbers[4])
