"""Every table is written from what is stored, whole or in part."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from results import blenet, cifar, depth, methods
from results.runs import RECIPES, changed
from training.recipe import load_recipe


def of_seed(seed: int) -> dict[str, Any]:
    return {
        "n": 10_000, "exits": [0.99, 0.994, 0.995], "accuracy": 0.994 + 0.0005 * seed, "exit_rates": [0.95, 0.03, 0.02],
        "mean_flops": 1.2e6, "whole_flops": 17e6, "parameters": 1_000_000,
    }  # fmt: skip


def test_blenet_says_how_much_faster_it_is() -> None:
    steps: dict[str, dict[str, Any]] = {f"seed {seed}": of_seed(seed) for seed in blenet.SEEDS}
    rounds = {step: [{"default": 30.0, "without_exits": 300.0}] * 3 for step in steps}
    text = blenet.section({**steps, "times": {"rounds": rounds, "rows": 10}})
    assert "| B-LeNet | 3 | 99.50 ± 0.12 | 95.0 / 3.0 / 2.0 | 1.20 | 30.00 ± 0.00 | 300.00 ± 0.00 |" in text
    assert "Without its exits B-LeNet takes 10.00 ± 0.00 times as long" in text
    assert "Not trained yet: LeNet-5 (6/16), " in text


def test_blenet_without_times_and_with_one_seed() -> None:
    assert "| B-LeNet | 1 | 99.45 | 95.0 / 3.0 / 2.0 | 1.20 | - | - |" in blenet.section({"seed 1": of_seed(1)})


def test_depth_sets_both_kinds_side_by_side() -> None:
    one = {
        "accuracy": [0.8, 0.8, 0.8, 0.85], "first_layer_gradient": {"start": 1e-9, "end": 0.1},
        "train_loss_last_exit": 0.4, "n": 10_000,
    }  # fmt: skip
    text = depth.section({f"depth 24, {kind} exits, seed 0": one for kind in ("without", "with")})
    assert text.count("| 24 | with") == 2 and "1.0e-09" in text


def test_methods_shows_every_way_that_is_done() -> None:
    one = {
        "exits": [0.8, 0.85, 0.86], "budget": {"accuracy": 0.85}, "target": {"accuracy": 0.85, "saved": 0.4},
        "costs": [0.4, 0.7, 1.0], "n": 10_000,
    }  # fmt: skip
    text = methods.section({"joint, seed 0": one, "gated, seed 0": one})
    assert "| `joint` | 1 | 80.00 | 85.00 | 86.00 | 85.00 | 85.00 | 40.00 |" in text and "| `mixed`" not in text


def test_cifar_leaves_out_a_budget_that_cannot_be_met() -> None:
    point = {"accuracy": 0.8, "cost": 0.49}
    ours = {"exits": [0.7, 0.8], "costs": [0.3, 1.0], "rules": {"ours": {"0.5": point, "0.75": point}}}
    gap = {"accuracy": 0.8, "saved": 0.41, "gap": 0.001, "low": -0.001, "high": 0.003, "upper": 0.0025}
    text = cifar.section(
        {"ours": ours, "gap": {"baseline": 0.801, "last_exit_gap": 0.0, "points": {"alone, 0.001": gap}}}
    )
    assert "| ours | ours | - | 80.00 | 80.00 | - / 49.0 / 49.0 |" in text
    assert "| alone | 0.1 | 80.00 | 41.0 | +0.10 (-0.10 to +0.30) | +0.25 |" in text


RUNS = {**blenet.runs(), **cifar.RUNS}


@pytest.mark.parametrize("name", [*cifar.RUNS, "seed 1", "LeNet-5 (6/16), seed 1", *methods.METHODS])
def test_every_run_has_a_recipe_that_holds(name: str, tmp_path: Path) -> None:
    if name in methods.METHODS:
        recipe, changes = RECIPES / "fashion-small.yaml", {f"training.{k}": v for k, v in methods.METHODS[name].items()}
    else:
        recipe, changes = RUNS[name].recipe, dict(RUNS[name].changes)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(changed(recipe, changes)))
    assert load_recipe(path).recipe.training.epochs > 0
