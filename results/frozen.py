"""MobileNetV2 with ImageNet's weights gets exits and stays as it is: accuracy against cost on CIFAR-10.

Its owner has fitted a classifier to his classes (`results.classifier`), the only step that knows the network. The exits
are put on it and trained by a recipe that names no part of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from calibration.latency import WHOLE
from results.classifier import fit_classifier
from results.curve_plot import Panel, draw_curve
from results.curves import point, threshold_per_exit
from results.page import paragraph, table
from results.runs import RECIPES, Run, Settings
from results.store import Store
from results.timed import Contender, Point, mean_times
from results.trained import Trained, trained

TITLE = "Exits on a frozen MobileNetV2"
PLOT = "results-frozen.svg"
BUDGETS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
RUN = Run(name="mobilenet-frozen", recipe=RECIPES / "frozen.yaml")
WEIGHTS = "mobilenet.npz"  # as the recipe names them
_CURVES = ("alone", "combined")
_ROUNDS, _ROWS = 3, 600


def train(store: Store, settings: Settings) -> None:
    """Fit the classifier and train the exits, unless that is done."""
    store.once("classifier", lambda: fit_classifier(RUN, settings, WEIGHTS))
    store.once("exits", lambda: _judged(_exits(settings)))


def time(store: Store, settings: Settings) -> None:
    """Time the network and all points, one row at a time; wants a quiet machine."""
    if (chosen := store.get("exits")) is not None:
        store.once("times", lambda: _times(chosen, settings))


def need_classifier(settings: Settings) -> None:
    """The network with its owner's classifier, fitted unless that is done."""
    if not (settings.work / WEIGHTS).exists():
        fit_classifier(RUN, settings, WEIGHTS)


def _exits(settings: Settings) -> Trained:
    need_classifier(settings)
    return trained(RUN, settings)


def _judged(found: Trained) -> dict[str, Any]:
    """Every budget that can be met, by max-probability and a threshold per exit; exits alone and combined."""
    curves = {}
    for name in _CURVES:
        rows, test = (found.answers(split, combined=name == "combined") for split in ("calibration", "test"))
        budgets = [one for one in BUDGETS if one > rows.cost_E[0]]
        curves[name] = {f"{one:g}": point(rows, test, threshold_per_exit(rows, one)) for one in budgets}
    return {
        "n": len(found.labels["test"]),
        "rows": dict(found.rows),
        "training": dict(found.training),
        "exits": found.accuracies(),
        "costs": [float(one) for one in found.flops_E / found.whole],
        "whole_flops": found.whole,
        "curves": curves,
    }


def _times(chosen: dict[str, Any], settings: Settings) -> dict[str, Any]:
    points = [
        Point(name=f"{name}, {budget}", thresholds=one["thresholds"], combined=name == "combined")
        for name, curve in chosen["curves"].items()
        for budget, one in curve.items()
    ]
    one = Contender(run=RUN, exits=_exits(settings).exits, points=points)
    return mean_times({"exits": one}, settings, whole="exits", rounds=_ROUNDS, rows=_ROWS)


def section(steps: dict[str, dict[str, Any]]) -> str:
    """The table from what is stored."""
    if not {"classifier", "exits"} <= set(steps):
        return "Not measured yet."
    found, times = steps["exits"], _medians(steps)
    whole = f"{100 * found['exits'][-1]:.2f}"
    rows = [["without exits", whole, "100.0", _us(times, WHOLE), whole, "100.0", _us(times, WHOLE)]]
    for budget in found["curves"]["alone"]:
        row = [f"at {100 * float(budget):g} %"]
        for name in _CURVES:
            one = found["curves"][name][budget]
            row += [f"{100 * one['accuracy']:.2f}", f"{100 * one['cost']:.1f}", _us(times, f"{name}, {budget}")]
        rows.append(row)
    header = ("budget", "accuracy %", "cost %", "mean us", "combined: accuracy %", "cost %", "mean us")
    exits = ", ".join(f"{100 * a:.2f} ({100 * c:.0f})" for a, c in zip(found["exits"], found["costs"], strict=True))
    parts = [
        paragraph(_about(steps["classifier"], found)),
        table(header, rows),
        paragraph(f"Accuracy % of every exit answering every row (cost %): {exits}."),
        paragraph(_remark(found)),
        "" if times else "Not measured yet: times.",
        f"![Accuracy against cost and time]({PLOT})",
    ]
    return "\n\n".join(part for part in parts if part)


def _remark(found: dict[str, Any]) -> str:
    *early, last = found["exits"]
    better = [number for number, accuracy in enumerate(early) if accuracy > last]
    if not better:
        return ""
    return (
        f"Exits {', '.join(map(str, better))}, counted from 0, are more accurate than the last one. A likely reason: "
        "that one is linear in the mean over all places of features that were trained for other classes, while their "
        "heads read earlier features at several places."
    )


def plot(steps: dict[str, dict[str, Any]], folder: Path) -> None:
    """Draw the curves, beside the page."""
    if "exits" not in steps:
        return
    found, times = steps["exits"], _medians(steps)
    flops = found["whole_flops"] / 1e6
    accuracy = {
        name: [(b, 100 * one["accuracy"], one["cost"]) for b, one in found["curves"][name].items()] for name in _CURVES
    }
    names = {"alone": "exits alone", "combined": "exits combined"}
    alone = [(flops * c, 100 * a) for a, c in zip(found["exits"], found["costs"], strict=True)]
    panels = [
        Panel(
            x="mean cost per row, million FLOPs",
            lines={
                names[name]: [(flops * cost, right) for _, right, cost in curve] for name, curve in accuracy.items()
            },
            marks={"one exit for all rows": alone[:-1], "without exits": [(flops, 100 * found["exits"][-1])]},
        )
    ]
    if times:
        panels.append(
            Panel(
                x="mean time per row, us (batch 1, one thread)",
                lines={
                    names[name]: [(times[f"{name}, {b}"], right) for b, right, _ in curve]
                    for name, curve in accuracy.items()
                },
                marks={"without exits": [(times[WHOLE], 100 * found["exits"][-1])]},
            )
        )
    draw_curve(folder / PLOT, panels)


def _medians(steps: dict[str, dict[str, Any]]) -> dict[str, float]:
    rounds = steps.get("times", {}).get("rounds", {}).get("exits", {})
    return {name: float(np.median(values)) for name, values in rounds.items()}


def _us(times: dict[str, float], name: str) -> str:
    return f"{times[name]:.0f}" if name in times else "-"


def _about(classifier: dict[str, Any], found: dict[str, Any]) -> str:
    training, rows = found["training"], found["rows"]
    return f"""\
MobileNetV2 with ImageNet's weights (`make weights`), which enlarges CIFAR-10's images to 96 x 96 itself:
{found["whole_flops"] / 1e6:.0f} MFLOPs. Its owner's part: a linear classifier for the ten classes, fitted to its
features of {classifier["train_rows"]:,} train rows. Then `results/recipes/frozen.yaml`, whose sections `exits` and
`training` name nothing of the network: {len(found["exits"])} exits, `{training["recipe"]}` for
{training["epochs"]} epochs on the same rows. Weights and batch norms of the network stay, so that the last exit
answers as it did before. Thresholds, one per exit on the largest probability, are those with the highest accuracy at a
budget of FLOPs on {rows["calibration"]:,} calibration rows; temperatures, and weights of *combined*, where an exit
answers together with those before it, come from {rows["tune"]:,} tune rows. Accuracy and cost on the {found["n"]:,}
official test images (re-encoded as JPEG); times: batch 1, one thread of onnxruntime, computing only, all points in
turn, the median of {_ROUNDS} rounds of {_ROWS} rows."""
