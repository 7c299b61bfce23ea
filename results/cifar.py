"""ResNet-20 with exits on CIFAR-10 beside its own baseline, and beside the rules of SDN and Zero Time Waste.

SDN (Kaya et al., 2019): pooled heads, joint training with a ramp, one max-probability threshold; a row that no exit is
sure of gets the surest answer. Zero Time Waste (Wolczyk et al., 2021): cascaded heads on a frozen backbone, and the
weighted geometric mean of the exits passed, one threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from calibration.thresholds import ExitScores, choose, criterion_named, exits_taken
from common.criteria import Outputs
from common.types import Array
from results.curves import Answers, combine, one_threshold, point, threshold_per_exit
from results.page import table
from results.runs import RECIPES, Run, Settings
from results.stats import paired_gap
from results.store import Store
from results.trained import CANDIDATES, CONFIDENCE, Trained, trained

TITLE = "ResNet-20 with exits on CIFAR-10"
BUDGETS = (0.25, 0.5, 0.75)
_FROZEN = {
    "exits.head": {"kind": "pool", "cascade": True},
    "training.recipe": "exits-only",
    "training.exit_weights": None,
    "training.backbone_epochs": 6,
    "training.epochs": 3,
}
RUNS = {
    "ours": Run(name="cifar-exits", recipe=RECIPES / "cifar-exits.yaml"),
    "baseline": Run(name="cifar-plain", recipe=RECIPES / "cifar-plain.yaml"),
    "SDN": Run(name="cifar-sdn", recipe=RECIPES / "cifar-sdn.yaml"),
    "Zero Time Waste": Run(name="cifar-ztw", recipe=RECIPES / "cifar-sdn.yaml", changes=_FROZEN),
}


def train(store: Store, settings: Settings) -> None:
    """Train and judge whatever is not done yet."""
    for name, run in RUNS.items():
        store.once(name, lambda n=name, r=run: _judged(n, trained(r, settings)))  # type: ignore[misc]
    store.once("gap", lambda: _gap(trained(RUNS["ours"], settings), trained(RUNS["baseline"], settings)))


def time(store: Store, settings: Settings) -> None:
    """Nothing is timed."""


def _judged(name: str, found: Trained) -> dict[str, Any]:
    document: dict[str, Any] = {
        "n": len(found.labels["test"]),
        "calibration_rows": sum(len(found.labels[split]) for split in ("tune", "calibration")),
        "exits": found.accuracies(),
        "costs": [float(one) for one in found.flops_E / found.whole],
        "whole_flops": found.whole,
    }
    if len(found.flops_E) > 1:
        document["rules"] = {rule: _at_budgets(rule, found) for rule in ("SDN", "Zero Time Waste", "ours")}
    return document


def _at_budgets(rule: str, found: Trained) -> dict[str, Any]:
    rows, test = (_answers(rule, found, split) for split in ("calibration", "test"))
    pick = threshold_per_exit if rule == "ours" else one_threshold
    return {f"{budget:g}": point(rows, test, pick(rows, budget)) for budget in BUDGETS if budget > rows.cost_E[0]}


def _answers(rule: str, found: Trained, split: str) -> Answers:
    """What a rule looks at: the exits' own probabilities, or the combination of those passed."""
    if rule == "SDN":
        return found.answers(split, surest=True)
    (probs_ENC,) = combine(found.logits["tune"], found.labels["tune"], [found.logits[split]])
    return Answers(probs_ENC=probs_ENC, labels_N=found.labels[split], cost_E=found.flops_E / found.whole)


def _gap(ours: Trained, baseline: Trained) -> dict[str, Any]:
    """At thresholds for a target drop: what is saved, and the paired gap to the baseline on the test split."""
    right_N = baseline.logits["test"][-1].argmax(axis=1) == baseline.labels["test"]
    points = {}
    for name in ("exits alone", "combined"):
        for drop in (0.001, 0.005, 0.01):
            answered_N, cost = _at_drop(ours, drop, combined=name == "combined")
            gap = paired_gap(answered_N, right_N)
            points[f"{name}, {drop:g}"] = {
                "accuracy": float(answered_N.mean()),
                "saved": 1.0 - cost,
                "gap": gap.gap,
                "low": gap.low,
                "high": gap.high,
                "upper": gap.upper,
            }
    last = paired_gap(ours.logits["test"][-1].argmax(axis=1) == ours.labels["test"], right_N)
    return {"baseline": float(right_N.mean()), "last_exit_gap": last.gap, "points": points}


def _at_drop(found: Trained, drop: float, *, combined: bool) -> tuple[Array, float]:
    criterion = criterion_named("max-probability")

    def scores(split: str) -> ExitScores:
        probs_ENC = (_answers("ours", found, split) if combined else found.answers(split)).probs_ENC
        outputs = [Outputs(probs_BC=probs_NC, labels_B=probs_NC.argmax(axis=1)) for probs_NC in probs_ENC]
        return ExitScores.scored(outputs, criterion)

    last_N = found.logits["calibration"][-1].argmax(axis=1)
    thresholds = choose(
        *(criterion, scores("tune"), scores("calibration"), last_N, found.labels["calibration"], found.flops_E),
        target_drop=drop,
        confidence=CONFIDENCE,
        count=CANDIDATES,
    )
    test = scores("test")
    taken_N = exits_taken(criterion, test.scores_EN, thresholds)
    right_N: Array = test.labels_EN[taken_N, np.arange(len(taken_N))] == found.labels["test"]
    return right_N, float(found.flops_E[taken_N].mean()) / found.whole


def section(steps: dict[str, dict[str, Any]]) -> str:
    """The tables from what is stored."""
    parts = [_ABOUT]
    rows = []
    for name, step in steps.items():
        for rule, budgets in step.get("rules", {}).items():
            cells = [budgets.get(f"{one:g}") for one in BUDGETS]
            rows.append([name, rule, *("-" if c is None else f"{100 * c['accuracy']:.2f}" for c in cells)])
            rows[-1] += [" / ".join("-" if c is None else f"{100 * c['cost']:.1f}" for c in cells)]
    header = (
        "network",
        "rule",
        *(f"at {100 * one:.0f} % of the cost, accuracy %" for one in BUDGETS),
        "cost reached %",
    )
    parts.append(table(header, rows))
    for name, step in steps.items():
        if "exits" in step:
            exits = ", ".join(
                f"{100 * a:.2f} ({100 * c:.0f})" for a, c in zip(step["exits"], step["costs"], strict=True)
            )
            parts.append(f"{name}, accuracy % of every exit answering every row (cost %): {exits}.")
    if gap := steps.get("gap"):
        lines = [
            [
                name.split(", ")[0],
                f"{100 * float(name.split(', ')[1]):g}",
                f"{100 * one['accuracy']:.2f}",
                f"{100 * one['saved']:.1f}",
                f"{100 * one['gap']:+.2f} ({100 * one['low']:+.2f} to {100 * one['high']:+.2f})",
                f"{100 * one['upper']:+.2f}",
            ]
            for name, one in gap["points"].items()
        ]
        columns = ("answers", "target drop, points", "accuracy %", "saves % of FLOPs", "below the baseline, points")
        parts.append(
            f"Paired on the 10,000 test rows with the baseline, {100 * gap['baseline']:.2f} %; "
            f"the last exit of ours lies {100 * gap['last_exit_gap']:+.2f} points below it."
        )
        parts.append(table((*columns, "one-sided 95 % limit"), lines))
    if missing := [name for name in (*RUNS, "gap") if name not in steps]:
        parts.append(f"Not measured yet: {', '.join(missing)}.")
    return "\n\n".join(parts)


_ABOUT = """\
One seed, 6 epochs each in bfloat16 on one thread, AdamW with a one-cycle rate, crops and flips, 45,000 training rows;
10,000 official test images (re-encoded as JPEG). The cost is that of ResNet-20 without exits, 81.6 MFLOPs. Thresholds
are chosen on 3,500 calibration rows, weights of combinations on 1,000 tune rows. *ours*: four convolutional heads,
earlier exits also learn from the last one; combination of the exits passed, a threshold per exit. *SDN*: one threshold
for all exits, else the surest answer. *Zero Time Waste*: combination of the exits passed, one threshold."""
