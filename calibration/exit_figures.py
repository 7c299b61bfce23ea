"""What every exit does alone, and what every operating point makes of them, on a split.

Tensor names carry their axes: N rows of the split, C classes, E exits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.foresight import foresight
from calibration.hindsight import at_random
from calibration.intervals import gap_interval, share_interval
from calibration.reliability import reliability
from calibration.served import Said
from calibration.thresholds import ExitScores, exit_flops, exits_taken
from common.criteria import softmax
from common.manifest import Manifest, OperatingPoint
from common.rule import Rule
from common.types import Array


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a split's rows get at an operating point."""

    exits_N: Array  # where each row leaves
    right_N: Array  # whether it gets the right answer, bool


def taken(manifest: Manifest, point: OperatingPoint, said: Said, labels_N: Array) -> Taken:
    """Decide every row of a split as the tiers would."""
    rule = Rule.of(manifest, point)
    scores = ExitScores.of(said, rule)
    exits_N = exits_taken(rule.criterion, scores.scores_EN, point.thresholds)
    answers_N = scores.labels_EN[exits_N, np.arange(len(labels_N))]
    return Taken(exits_N=exits_N, right_N=answers_N == labels_N)


def rights(said: Said, labels_N: Array) -> Array:
    """Where every exit alone is right, [E, N] bool."""
    return np.stack([logits_NC.argmax(axis=1) == labels_N for logits_NC in said.logits])


def accuracy_of(right_N: Array) -> dict[str, Any]:
    """An accuracy with its 95 % interval."""
    count = int(right_N.sum())
    return {
        "accuracy": float(right_N.mean()),
        "accuracy_interval": share_interval(count, len(right_N)).document(),
    }


def each_exit(manifest: Manifest, said: Said, labels_N: Array) -> list[dict[str, Any]]:
    """Every exit alone, as if it answered every row; see `docs/evaluation.md`."""
    rule = Rule.of(manifest, manifest.operating_points["default"])
    criterion, scores_EN = rule.criterion, ExitScores.of(said, rule).scores_EN
    right_EN, flops_E = rights(said, labels_N), exit_flops(manifest)
    found = []
    for number, (logits_NC, leave) in enumerate(zip(said.logits, manifest.exits, strict=True)):
        surety_N = scores_EN[number] if criterion.stricter_is_higher else -scores_EN[number]
        last = number == len(said.logits) - 1
        found.append(
            {
                "exit": number,
                **accuracy_of(right_EN[number]),
                "flops": float(flops_E[number]),
                "uncalibrated": reliability(softmax(logits_NC), labels_N).document(),
                "calibrated": reliability(softmax(logits_NC, leave.temperature), labels_N).document(),
                "foresight": None if last else {"criterion": criterion.name, **foresight(surety_N, right_EN, number)},
            }
        )
    return found


def each_point(manifest: Manifest, said: Said, labels_N: Array) -> dict[str, Any]:
    """Every operating point, by name; see `docs/evaluation.md`."""
    right_EN, flops_E = rights(said, labels_N), exit_flops(manifest)
    found: dict[str, Any] = {}
    for name, point in manifest.operating_points.items():
        rows = taken(manifest, point, said, labels_N)
        counts_E = np.bincount(rows.exits_N, minlength=len(flops_E))
        rights_E = np.bincount(rows.exits_N, weights=rows.right_N, minlength=len(flops_E))
        gap = gap_interval(rows.right_N, right_EN[-1])
        rates = (counts_E / len(labels_N)).tolist()
        found[name] = {
            **accuracy_of(rows.right_N),
            "drop": float(right_EN[-1].mean()) - float(rows.right_N.mean()),
            "drop_interval": [-gap.high, -gap.low],
            "exit_rates": rates,
            "exit_rate_intervals": [share_interval(int(count), len(labels_N)).document() for count in counts_E],
            "exit_accuracy": [float(r / c) if c else None for r, c in zip(rights_E, counts_E, strict=True)],
            "exit_accuracy_intervals": [
                share_interval(int(r), int(c)).document() if c else None
                for r, c in zip(rights_E, counts_E, strict=True)
            ],
            "mean_flops": float(flops_E[rows.exits_N].mean()),
            "random_accuracy": at_random(right_EN, rates),
        }
    return found
