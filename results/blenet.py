"""B-LeNet on MNIST over three seeds, beside the same stages without exits and beside static networks.

The figures to reach are BranchyNet's (Teerapittayanon et al., 2016): 99.25 % with 94.3 % leaving at exit 1, 5.4 times
as fast on a CPU as its LeNet.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from calibration.datasets import load_test
from calibration.document import recipe_section
from calibration.latency import WHOLE, contenders, measure_latency
from calibration.served import Served
from calibration.settings import DataSettings
from common.bundle import Bundle
from results.page import paragraph, table
from results.runs import RECIPES, Run, Settings, evaluation
from results.stats import over_seeds
from results.store import Store

TITLE = "B-LeNet on MNIST"
SEEDS = (1, 2, 3)
_BASE = RECIPES / "blenet.yaml"
_ROUNDS, _ROWS = 5, 1000
_EQUAL = 0.05  # points: five of 10,000 rows
_ALONE = {"training.exit_weights": [1.0], "training.rate_penalty": 0.0}
_STATIC: dict[str, tuple[str, dict[str, Any]]] = {  # name -> function of static_lenet.py, options
    "LeNet-5 (6/16)": ("lenet5", {"width": 1.0}),
    "LeNet-5 (12/32)": ("lenet5", {"width": 2.0}),
    "LeNet-5 (18/48)": ("lenet5", {"width": 3.0}),
    "LeNet-5 (24/64)": ("lenet5", {"width": 4.0}),
    "first stage (16/64)": ("first_stage", {"stem": 16, "head": 64}),
    "first stage (32/128)": ("first_stage", {"stem": 32, "head": 128}),
}


def runs() -> dict[str, Run]:
    """Every training of the table by its step."""
    found = {f"seed {seed}": Run(name=f"blenet-{seed}", recipe=_BASE, seed=seed) for seed in SEEDS}
    for seed, (name, (function, options)) in itertools.product(SEEDS, _STATIC.items()):
        model = {"model": {"factory": f"./static_lenet.py:{function}", "options": options}}
        slug = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
        found[f"{name}, seed {seed}"] = Run(name=f"{slug}-{seed}", recipe=_BASE, seed=seed, changes={**_ALONE, **model})
    return found


def train(store: Store, settings: Settings) -> None:
    """Train and evaluate whatever is not done yet."""
    for step, run in runs().items():
        store.once(step, lambda run=run: _accuracies(run.build(settings)))  # type: ignore[misc]


def time(store: Store, settings: Settings) -> None:
    """Time all networks that are trained, one row at a time, in rounds of all of them; wants a quiet machine."""
    store.once("times", lambda: _times({step: settings.work / run.name for step, run in runs().items()}, settings))


def _accuracies(bundle: Path) -> dict[str, Any]:
    found = evaluation(bundle)
    point = found["operating_points"]["default"]
    return {
        "n": found["n"],
        "exits": [leave["accuracy"] for leave in found["exits"]],
        "accuracy": point["accuracy"],
        "exit_rates": point["exit_rates"],
        "mean_flops": point["mean_flops"],
        "whole_flops": sum(stage.flops for stage in Bundle(bundle).manifest.stages),
        "parameters": sum(stage.parameters for stage in Bundle(bundle).manifest.stages),
    }


def _times(bundles: dict[str, Path], settings: Settings) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {}
    served = {step: Served(Bundle(path)) for step, path in bundles.items() if (path / "evaluation.json").exists()}
    data = recipe_section(next(iter(served.values())).bundle, "data", DataSettings)
    test = load_test(data, settings.data_dir)
    for number in range(_ROUNDS):
        part = test.take(np.arange(number * _ROWS, (number + 1) * _ROWS))
        for step, one in served.items():
            taken = measure_latency(contenders(one), one, part, _ROWS)
            found.setdefault(step, []).append({name: taken[name]["mean_us"] for name in ("default", WHOLE)})
    return {"rounds": found, "rows": _ROWS}


def section(steps: dict[str, dict[str, Any]]) -> str:
    """The table from what is stored."""
    times = steps.get("times", {}).get("rounds", {})
    rows, notes = [], []
    own = [steps[f"seed {seed}"] for seed in SEEDS if f"seed {seed}" in steps]
    for name, group in [("B-LeNet", [f"seed {seed}" for seed in SEEDS]), *_families()]:
        done = [step for step in group if step in steps]
        if done:
            rows.append(_row(name, [steps[step] for step in done], [times[step] for step in done if step in times]))
    speedups = [_speedup(times[f"seed {seed}"]) for seed in SEEDS if times]
    if speedups:
        notes.append(
            f"Without its exits B-LeNet takes {over_seeds(speedups)} times as long (median of the rounds' ratios; "
            f"per seed {', '.join(f'{one:.2f}' for one in speedups)}): "
            f"{own[0]['whole_flops'] / 1e6:.2f} MFLOPs instead of {own[0]['mean_flops'] / 1e6:.2f} at seed {SEEDS[0]}."
        )
    if times:
        notes.append(paragraph(_beside(steps, times)))
    if missing := [name for name, group in _families() if not set(group) & set(steps)]:
        notes.append(f"Not trained yet: {', '.join(missing)}.")
    header = (
        "network",
        "seeds",
        "accuracy %",
        "leave at exit 1 / 2 / 3 %",
        "MFLOPs",
        "mean us",
        "mean us without exits",
    )
    return "\n\n".join([_ABOUT, table(header, rows), *notes])


def _beside(steps: dict[str, dict[str, Any]], times: dict[str, list[dict[str, float]]]) -> str:
    """Static networks in less and in more time than B-LeNet, with their accuracies beside its own."""

    def of(group: list[str], point: str) -> tuple[float, float] | None:
        done = [step for step in group if step in steps and step in times]
        if not done:
            return None
        accuracy = np.mean([100 * steps[step]["accuracy"] for step in done])
        return float(accuracy), float(np.mean([_mean(times[step], point) for step in done]))

    own = of([f"seed {seed}" for seed in SEEDS], "default")
    if own is None:
        return ""
    found = {name: one for name, group in _families() if (one := of(group, WHOLE)) is not None}
    less = [f"{name} ({a - own[0]:+.2f} points, {t:.0f} us)" for name, (a, t) in found.items() if t < own[1]]
    equal = sorted((t, name) for name, (a, t) in found.items() if a >= own[0] - _EQUAL)
    quickest = f"{equal[0][1]}, {equal[0][0]:.0f} us, {equal[0][0] / own[1]:.1f} times B-LeNet's" if equal else "none"
    return (
        f"Static networks that take less time than B-LeNet, accuracy beside its own: {', '.join(less) or 'none'}. The "
        f"quickest that is as accurate, to within {_EQUAL:g} points: {quickest}."
    )


def _families() -> list[tuple[str, list[str]]]:
    return [(name, [f"{name}, seed {seed}" for seed in SEEDS]) for name in _STATIC]


def _row(name: str, found: list[dict[str, Any]], times: list[list[dict[str, float]]]) -> list[str]:
    rates = np.mean([one["exit_rates"] for one in found], axis=0)
    exits = len(rates) > 1
    taken = str(over_seeds([_mean(one, "default" if exits else WHOLE) for one in times])) if times else "-"
    whole = str(over_seeds([_mean(one, WHOLE) for one in times])) if times and exits else "-"
    return [
        name,
        str(len(found)),
        str(over_seeds([100 * one["accuracy"] for one in found])),
        " / ".join(f"{100 * rate:.1f}" for rate in rates) if exits else "-",
        f"{np.mean([one['mean_flops'] for one in found]) / 1e6:.2f}",
        taken,
        whole,
    ]


def _speedup(rounds: list[dict[str, float]]) -> float:
    """How many times as long a row takes without exits."""
    return float(np.median([one[WHOLE] / one["default"] for one in rounds]))


def _mean(rounds: list[dict[str, float]], name: str) -> float:
    """The median over rounds of the mean time of a row."""
    return float(np.median([one[name] for one in rounds]))


_ABOUT = """\
10,000 official test images; thresholds from rows of the train split that nothing was trained on; no seed was left out.
`±` is half of the 95 % interval over seeds (Student's t). Times: batch 1, one thread of onnxruntime, computing only;
every network in turn, five rounds of 1,000 rows, the median of the rounds' means. The static networks are trained by
the same recipe, `results/recipes/blenet.yaml`: LeNet-5 at several widths, and B-LeNet's first stage with its exit
alone; *seeds* says of how many each row is the mean."""
