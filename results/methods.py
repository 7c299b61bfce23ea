"""Six ways to train one network with exits, on Fashion-MNIST: which one to take?

Every way sees every training row equally often: where a way has phases, their epochs add up to those of joint training.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from results.curves import one_threshold, point
from results.page import table
from results.runs import RECIPES, Run, Settings
from results.stats import over_seeds
from results.store import Store
from results.trained import trained

TITLE = "Which way to train"
SEEDS = (0, 1, 2)
EPOCHS = 6
METHODS: dict[str, dict[str, Any]] = {
    "joint": {},
    "distilled": {"recipe": "distilled", "distillation": 0.5},
    "mixed": {"recipe": "mixed", "backbone_epochs": EPOCHS // 2, "epochs": EPOCHS // 2},
    "gated": {"recipe": "gated"},
    "layer-wise": {"recipe": "layer-wise", "epochs": EPOCHS // 3},
    "exits-only": {"recipe": "exits-only", "backbone_epochs": EPOCHS - 2, "epochs": 2},
}
_TARGET, _BUDGET = 0.005, 0.6


def train(store: Store, settings: Settings) -> None:
    """Train and judge whatever is not done yet."""
    for seed, name in itertools.product(SEEDS, METHODS):
        store.once(f"{name}, seed {seed}", lambda n=name, s=seed: _judged(n, s, settings))  # type: ignore[misc]


def time(store: Store, settings: Settings) -> None:
    """Nothing is timed."""


def _judged(name: str, seed: int, settings: Settings) -> dict[str, Any]:
    changes = {f"training.{key}": value for key, value in METHODS[name].items()}
    run = Run(name=f"methods-{name}-{seed}", recipe=RECIPES / "fashion-small.yaml", seed=seed, changes=changes)
    found = trained(run, settings)
    rows, test = found.answers("calibration"), found.answers("test")
    criterion = "gate" if name == "gated" else "max-probability"
    return {
        "exits": found.accuracies(),
        "costs": [float(one) for one in test.cost_E],
        "target": found.at_target(criterion, _TARGET),
        "budget": point(rows, test, one_threshold(rows, _BUDGET)),
        "n": len(test.labels_N),
    }


def section(steps: dict[str, dict[str, Any]]) -> str:
    """The table from what is stored."""
    rows = []
    for name in METHODS:
        found = [steps[f"{name}, seed {seed}"] for seed in SEEDS if f"{name}, seed {seed}" in steps]
        if found:
            exits = np.array([one["exits"] for one in found]).T
            rows.append(
                [
                    f"`{name}`",
                    str(len(found)),
                    *(str(over_seeds(list(100 * one))) for one in exits),
                    str(over_seeds([100 * one["budget"]["accuracy"] for one in found])),
                    str(over_seeds([100 * one["target"]["accuracy"] for one in found])),
                    str(over_seeds([100 * one["target"]["saved"] for one in found])),
                ]
            )
    header = (
        *("training", "seeds", "exit 0 %", "exit 1 %", "exit 2 %", f"at {100 * _BUDGET:.0f} % of the cost %"),
        *(f"at a drop of {100 * _TARGET:g} points %", "saves % of FLOPs"),
    )
    return f"{_ABOUT}\n\n{table(header, rows)}"


_ABOUT = f"""\
Fashion-MNIST, 10,000 rows to train on, {EPOCHS} epochs for every way (`mixed` {EPOCHS // 2} + {EPOCHS // 2},
`exits-only` {EPOCHS - 2} for the backbone + 2, `layer-wise` {EPOCHS // 3} per exit), 10,000 official test images;
ResNet-8 of half the width (`results/recipes/fashion-small.yaml`). Accuracy of every exit answering every row; then with
one max-probability threshold chosen on 10,000 calibration rows for a mean cost of at most {100 * _BUDGET:.0f} % of the
network without exits; then at thresholds for a drop of at most {100 * _TARGET:g} points below the own last exit
(`gated` by its gates). `±` is half of the 95 % interval over seeds (Student's t)."""
