"""Accuracy against cost under many thresholds, for a picture only.

The sweep shows what an ideal choice could have reached on this split. No threshold is ever taken from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from calibration.served import Said
from calibration.thresholds import ExitScores, candidates, exit_flops, outcome
from common.manifest import Manifest
from common.rule import Rule
from common.types import Array

_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Points of a curve, cheapest first."""

    mean_flops: tuple[float, ...]
    accuracy: tuple[float, ...]


def sweep(manifest: Manifest, said: Said, labels_N: Array) -> Sweep:
    """Every exit gets the same quantile of its own scores as its threshold; nothing in the manifest changes."""
    rule = Rule.of(manifest, manifest.operating_points["default"])
    criterion = rule.criterion
    scores = ExitScores.of(said, rule)
    flops_E = exit_flops(manifest)
    ladders = [candidates(criterion, scores_N, _STEPS) for scores_N in scores.scores_EN[:-1]]
    found = []
    for step in range(max((len(ladder) for ladder in ladders), default=0)):
        thresholds = [*(ladder[min(step, len(ladder) - 1)] for ladder in ladders), criterion.accept_all]
        result = outcome(scores, labels_N, criterion, thresholds, flops_E)
        found.append((result.mean_flops, result.accuracy))
    found.sort()
    return Sweep(mean_flops=tuple(f for f, _ in found), accuracy=tuple(a for _, a in found))
