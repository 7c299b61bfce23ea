"""Operating points: what each criterion needs is fitted and thresholds are chosen, then measured on the certify split.

Everything comes from the tune split, except which rung of a ladder a guarantee takes. Recipes of before, which call
the certify split `calibration`, judge `target_drop` on it as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from calibration.budget import check_budget, thresholds_within
from calibration.document import rule_json, thresholds_json
from calibration.gates import doubtful_gates, fit_gates
from calibration.guarantee import Split, guaranteed_point
from calibration.matched import least_drop, rows_needed
from calibration.served import Served
from calibration.settings import CalibrationSettings, PointSettings
from calibration.thresholds import ExitScores, choose, exit_flops, outcome
from common.criteria import CRITERIA, Criterion
from common.errors import ConfigError
from common.manifest import FittedGate
from common.rule import Rule

Report = Callable[[str], None]


def make_points(
    served: Served,
    wanted: Sequence[PointSettings],
    settings: CalibrationSettings,
    tune: Split,
    held_out: Split,
    judged_on: Split,
    report: Report,
) -> dict[str, Any]:
    """Every operating point for manifest.json, `full` among them.

    Args:
        served: ran the bundle; its manifest holds codes, temperatures and combinations.
        wanted: `settings.all_points()`.
        settings: how `target_drop` is judged.
        tune: fits gates and fixes thresholds.
        held_out: the certify split.
        judged_on: the rows that `target_drop` is judged on.
        report: takes one line per point.

    Raises:
        ConfigError: when a split is empty, or a point cannot be had.
    """
    if not len(tune.examples):
        raise ConfigError("The tune split holds no rows, so no thresholds can be chosen.")
    if any(point.criterion == "gate" for point in wanted):
        for note in doubtful_gates(tune.said, tune.examples.labels_N):
            report(note)
    rules: dict[tuple[str, str], Rule] = {}
    points: dict[str, Any] = {}
    for point in wanted:
        assert point.criterion is not None and point.combine is not None
        key = (point.criterion, point.combine)
        rule = rules[key] = rules.get(key) or fitted_rule(served, CRITERIA[point.criterion], point.combine, tune)
        if point.guarantee is not None:
            points[point.name] = guaranteed_point(served, rule, point.name, point.guarantee, tune, held_out, report)
        else:
            thresholds = _thresholds(served, point, rule, settings, tune, judged_on, report)
            points[point.name] = _measured(served, point.name, rule, thresholds, held_out, report)
        if point.name == "default":
            never = (*(math.nan,) * (rule.exits - 1), rule.criterion.accept_all)
            plain = Rule(rule.criterion, served.manifest.exits, len(served.manifest.classes))
            points["full"] = _measured(served, "full", plain, never, held_out, report)
    return points


def check_points(wanted: Sequence[PointSettings], flops_E: Sequence[float]) -> None:
    """Refuse what needs no row to be seen: thresholds that do not fit exits and criterion, budgets out of reach.

    Args:
        wanted: `settings.all_points()`.
        flops_E: of a row that leaves at each exit.

    Raises:
        ConfigError: one sentence that names the point.
    """
    for point in wanted:
        assert point.criterion is not None
        if point.thresholds is not None:
            _given(point.name, CRITERIA[point.criterion], len(flops_E), point.thresholds)
        if point.budget is not None:
            check_budget(flops_E, point.budget, point.name)


def fitted_rule(served: Served, criterion: Criterion, combine: str, tune: Split) -> Rule:
    """A criterion with what it needs: gates fitted on the tune split, where the network has none."""
    exits, classes = served.manifest.exits, len(served.manifest.classes)
    gates: tuple[FittedGate | None, ...] = ()
    if criterion.name == "gate":
        gates = fit_gates(tune.said, exits, classes, combine, tune.examples.labels_N)
    return Rule(criterion, exits, classes, combine=combine, gates=gates)


def _thresholds(
    served: Served,
    point: PointSettings,
    rule: Rule,
    settings: CalibrationSettings,
    tune: Split,
    judged_on: Split,
    report: Report,
) -> tuple[float, ...]:
    if point.thresholds is not None:
        return _given(point.name, rule.criterion, rule.exits, point.thresholds)
    scores, flops_E = ExitScores.of(tune.said, rule), exit_flops(served.manifest)
    if point.budget is not None:
        return thresholds_within(rule.criterion, scores.scores_EN, flops_E, point.budget)
    assert point.target_drop is not None
    chosen = choose(
        rule.criterion,
        scores,
        ExitScores.of(judged_on.said, rule),
        judged_on.said.logits[-1].argmax(axis=1),
        judged_on.examples.labels_N,
        flops_E,
        target_drop=point.target_drop,
        confidence=settings.confidence,
        count=settings.candidates,
    )
    if rule.exits > 1 and all(math.isnan(threshold) for threshold in chosen[:-1]):
        split = "tune" if judged_on is tune else "certify"
        why = _why_none(len(judged_on.examples), split, point.target_drop, settings.confidence)
        report(f"{point.name}: no row leaves early. {why}")
    return chosen


def _why_none(rows: int, split: str, target: float, confidence: float) -> str:
    """Why no thresholds keep a target drop, and what helps."""
    least = least_drop(rows, confidence)
    if target == 0.0:
        return f"A target_drop of 0 needs exits that gain accuracy on the {split} rows. A larger one lets rows leave."
    if least > target:
        more = math.ceil(least * 1e5) / 1e5
        return (
            f"{rows:,} {split} rows cannot show a drop of {target:g} at confidence {confidence:g}, even if not one "
            f"answer differs: it takes {rows_needed(target, confidence):,} of them (data.{split}), or a target_drop of "
            f"{more:g}."
        )
    return (
        f"On {rows:,} {split} rows no thresholds keep the drop's upper limit at confidence {confidence:g} within "
        f"{target:g}. A larger target_drop, more {split} rows or better exits help."
    )


def _given(name: str, criterion: Criterion, exits: int, thresholds: Sequence[float | None]) -> tuple[float, ...]:
    if len(thresholds) != exits - 1:
        raise ConfigError(
            f"calibration.points: {name!r} gives {len(thresholds)} thresholds. It needs {exits - 1}, one per exit "
            "but the last."
        )
    numbers = tuple(math.nan if threshold is None else float(threshold) for threshold in thresholds)
    for threshold in numbers:
        try:
            criterion.check(threshold)
        except ValueError as error:
            raise ConfigError(f"calibration.points: {name!r}: {error}") from None
    return (*numbers, criterion.accept_all)


def _measured(
    served: Served, name: str, rule: Rule, thresholds: Sequence[float], held_out: Split, report: Report
) -> dict[str, Any]:
    labels_N = held_out.examples.labels_N
    scores = ExitScores.of(held_out.said, rule)
    found = outcome(scores, labels_N, rule.criterion, thresholds, exit_flops(served.manifest))
    rates = " / ".join(f"{100 * rate:.1f}" for rate in found.exit_rates)
    report(f"{name}: accuracy {100 * found.accuracy:.2f} %, exits {rates} %, {found.mean_flops / 1e6:.2f} MFLOPs")
    return {
        **rule_json(rule),
        "thresholds": thresholds_json(thresholds),
        "measured": {
            "split": "certify",
            "n": len(labels_N),
            "accuracy": round(found.accuracy, 6),
            "exit_rates": [round(rate, 6) for rate in found.exit_rates],
            "mean_flops": round(found.mean_flops, 1),
        },
        "guarantee": None,
        "configuration": served.configuration(),
    }
