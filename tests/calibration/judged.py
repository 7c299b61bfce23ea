"""Rows whose every answer is known: three exits, each better than the one before, and the uncut network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from calibration.risks import Answered
from calibration.thresholds import ExitScores
from common.criteria import CRITERIA, Criterion, Outputs

FLOPS = np.array([1.0, 6.0, 20.0])
CLASSES = 5


@dataclass(frozen=True)
class Judged:
    """What a split says."""

    criterion: Criterion
    scores: ExitScores
    rows: Answered


def judge_rows(rows: int, seed: int, criterion: str = "max-probability", coded: float = 0.002) -> Judged:
    """Rows of mixed difficulty; `coded` is how often coding the cuts turns the last exit's answer."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    ease = rng.gamma(2.0, 0.8, (rows, 1))
    wrong_way = np.eye(CLASSES)[rng.integers(0, CLASSES, rows)] * rng.exponential(1.0, (rows, 1))  # all exits share it
    outputs, answers = [], []
    for skill, noise in ((2.5, 1.0), (3.2, 0.8), (4.0, 0.6)):
        clean = np.eye(CLASSES)[labels] * ease * skill + wrong_way
        logits = (clean + rng.normal(0, noise, (rows, CLASSES))).astype(np.float32)
        outputs.append(Outputs.of(logits, gate_B=logits.max(axis=1) - logits.mean(axis=1) - 2))
        answers.append(logits.argmax(axis=1))
    reference = answers[-1].copy()
    turned = rng.random(rows) < coded
    answers[-1] = np.where(turned, (answers[-1] + 1) % CLASSES, answers[-1])
    return Judged(
        criterion=CRITERIA[criterion],
        scores=replace(ExitScores.scored(outputs, CRITERIA[criterion]), labels_EN=np.stack(answers)),
        rows=Answered(answers=np.stack(answers), reference_N=reference, labels_N=labels),
    )
