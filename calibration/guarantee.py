"""From logits of the tune and certify splits to an operating point with a certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.certificate import certificate, point_json
from calibration.certify import certify, check_promise
from calibration.datasets import Examples
from calibration.ladder import build_ladder
from calibration.risks import Answered, risk_named
from calibration.served import Said, Served
from calibration.settings import PromiseSettings
from calibration.thresholds import ExitScores, exit_flops, exits_taken
from calibration.whole import Whole
from common.errors import ConfigError
from common.rule import Rule
from common.types import Array

_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of a split and what every exit says about them as they are served."""

    examples: Examples
    said: Said


def guaranteed_point(
    served: Served,
    rule: Rule,
    name: str,
    wanted: PromiseSettings,
    tune: Split,
    held_out: Split,
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """An operating point for manifest.json.

    The ladder is fixed on the tune split before a loss of the certify split is looked at.

    Args:
        served: runs the bundle; its manifest holds the temperatures and codes of both splits' logits.
        rule: what decides.
        name: of the point.
        wanted: risk, epsilon, delta.
        tune: fixes the ladder.
        held_out: the certify split; nothing of the bundle may depend on it.
        report: takes one line.

    Raises:
        ConfigError: when a split is empty or a setting is out of range.
    """
    if name == "full":
        raise ConfigError("Operating point 'full' is every row at the last exit. Give the guarantee another name.")
    check_promise(wanted.epsilon, wanted.delta)
    risk, flops_E = risk_named(wanted.risk), exit_flops(served.manifest)
    for what, split in (("tune", tune), ("certify", held_out)):
        if not len(split.examples):
            raise ConfigError(f"The {what} split holds no rows, so nothing can be certified.")
    ladder = build_ladder(rule.criterion, *judged(served, rule, tune), risk, flops_E)
    found = certify(
        ladder,
        *judged(served, rule, held_out),
        risk,
        flops_E,
        epsilon=wanted.epsilon,
        delta=wanted.delta,
    )
    paper = certificate(found, served, rule=rule, tune=tune.examples, certify=held_out.examples)
    chosen = found.rungs[found.chosen or 0]
    saved = 100.0 * (1.0 - chosen.mean_flops / float(flops_E[-1]))
    gain = f" {saved:.1f} % of the FLOPs are saved." if paper["certified"] else ""
    report(f"{name}: {paper['statement']}{gain}")
    return {**point_json(chosen, paper, found.rows, rule), "configuration": served.configuration()}


def kept(served: Served, split: Split) -> dict[str, Any]:
    """What certified operating points cost on other rows, such as the test split.

    Returns:
        name -> risk, epsilon, delta and the mean loss on these rows; empty when no point is certified.
    """
    manifest = served.manifest
    papers = {name: point.guarantee for name, point in manifest.operating_points.items()}
    certified = {name: paper for name, paper in papers.items() if paper is not None and paper.get("certified")}
    if not certified:
        return {}
    reference_N = reference(served, split.examples)
    found: dict[str, Any] = {}
    for name, paper in certified.items():
        point = manifest.operating_points[name]
        rule = Rule.of(manifest, point)
        scores = ExitScores.of(split.said, rule)
        rows = answered(scores, reference_N, split.examples)
        taken_N = exits_taken(rule.criterion, scores.scores_EN, point.thresholds)
        losses_N = risk_named(paper["risk"]).losses(rows)[taken_N, np.arange(len(taken_N))]
        found[name] = {key: paper[key] for key in ("risk", "epsilon", "delta")} | {"mean_loss": float(losses_N.mean())}
    return found


def reference(served: Served, examples: Examples) -> Array:
    """What the uncut float32 network answers, [N]."""
    inputs, whole = served.inputs(examples), Whole(served)
    parts = range(0, len(examples), _ROWS)
    batches = ({name: array[at : at + _ROWS] for name, array in inputs.items()} for at in parts)
    return np.concatenate([whole.run(batch).argmax(axis=1) for batch in batches])


def answered(scores: ExitScores, reference_N: Array, examples: Examples) -> Answered:
    """What every exit answers, [E, N], beside the uncut float32 network and the labels."""
    return Answered(answers=scores.labels_EN, reference_N=reference_N, labels_N=examples.labels_N)


def judged(served: Served, rule: Rule, split: Split) -> tuple[ExitScores, Answered]:
    """Scores of a split, and what it answers and should answer."""
    scores = ExitScores.of(split.said, rule)
    return scores, answered(scores, reference(served, split.examples), split.examples)
