"""Every table is written from what is stored, whole or in part."""

from pathlib import Path
from typing import Any

import pytest
import torch

from results import blenet, cifar, depth, frozen, methods
from results.recipes import backbones
from results.runs import RECIPES, Run, Settings, written
from training.arrays import write_arrays
from training.given_weights import start_from
from training.recipe import load_recipe
from training.resnet import ResNet


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


def test_blenet_says_which_static_networks_are_quicker_or_as_accurate() -> None:
    steps = {f"seed {seed}": of_seed(seed) for seed in blenet.SEEDS}
    steps["LeNet-5 (6/16), seed 1"] = {**of_seed(1), "accuracy": 0.992, "exit_rates": [1.0]}
    steps["LeNet-5 (12/32), seed 1"] = {**of_seed(1), "accuracy": 0.9946, "exit_rates": [1.0]}
    steps["LeNet-5 (18/48), seed 1"] = {**of_seed(1), "accuracy": 0.9951, "exit_rates": [1.0]}
    rounds = {step: [{"default": 30.0, "without_exits": 300.0}] for step in steps if step.startswith("seed")}
    for width, taken in (("6/16", 20.0), ("12/32", 60.0), ("18/48", 90.0)):
        rounds[f"LeNet-5 ({width}), seed 1"] = [{"default": 0.0, "without_exits": taken}]
    text = blenet.section({**steps, "times": {"rounds": rounds, "rows": 10}})
    text = " ".join(text.split())
    assert "accuracy beside its own: LeNet-5 (6/16) (-0.30 points, 20 us)." in text
    assert "as accurate, to within 0.05 points: LeNet-5 (12/32), 60 us, 2.0 times B-LeNet's." in text


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


TAKEN = {"without_exits": [1100.0], "0.5": [300.0, 500.0], "0.58": [1.0]}


def judged(**changes: Any) -> dict[str, Any]:
    training = {"recipe": "joint", "epochs": 20, "optimizer": "sgd", "learning_rate": 0.1, "precision": "bfloat16"}
    return {
        "n": 10_000, "rows": {"train": 45_000, "tune": 1_000, "calibration": 3_500}, "training": training,
        "exits": [0.7, 0.8], "costs": [0.3, 1.0], "whole_flops": 8e7, **changes,
    }  # fmt: skip


def test_cifar_leaves_out_a_budget_that_cannot_be_met(tmp_path: Path) -> None:
    point = {"accuracy": 0.8, "cost": 0.49, "gap": 0.001, "low": -0.001, "high": 0.003, "upper": 0.0025}
    steps = {
        "baseline": judged(exits=[0.801], costs=[1.0]),
        "ours": judged(rules={"ours": {"0.5": point, "0.75": point}}),
        "times of ours": {"rounds": {"baseline": {"without_exits": [900.0, 1000.0]}, "ours": TAKEN}},
        "times": {"rounds": {"baseline": {"without_exits": [90.0, 100.0]}}},
    }
    text = " ".join(cifar.section(steps).split())
    assert "*ours* `joint` for 20 epochs by sgd from 0.1, bfloat16" in text and "81.6" not in text
    assert "| ours | ours | - | 80.00 | - | 80.00 | - / 49.0 / - / 49.0 |" in text
    assert "| baseline | - | 80.10 | - | - | 95 | 1.00 |" in text
    assert "a network takes us: *ours* 1100; the baseline is one graph of 95 us." in text
    assert "| ours, at 50 % | 51.0 | 80.00 | +0.10 (-0.10 to +0.30) | +0.25 | 400 | 2.50 |" in text
    assert "| ours, at 75 % | 51.0 | 80.00 | +0.10 (-0.10 to +0.30) | +0.25 | - | - |" in text
    saving = "51.0 % saved (*ours*, +0.10 points below the baseline, limit +0.25)"
    assert f"The aim is reached: {saving}. The limit is kept with {saving}." in text
    steps["ours"]["rules"]["ours"] = {"0.58": {**point, "cost": 0.57, "upper": 0.0031}}
    cifar.plot(steps, tmp_path)
    assert "mean time per row" in (tmp_path / cifar.PLOT).read_text()
    missed = " ".join(cifar.section(steps).split())
    assert "The aim is not reached: 43.0 % saved (*ours*, +0.10 points below" in missed and "is kept" not in missed
    assert "Not measured yet: ours, two exits; ours, frozen; SDN, frozen; Zero Time Waste; SDN, joint." in text


def test_zero_time_waste_stands_on_the_baseline_itself(tmp_path: Path) -> None:
    """The baseline's weights, by the names that they have in the network without exits."""
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    baseline = backbones.cifar_resnet(blocks=1, mean=mean, std=std).eval()
    write_arrays(tmp_path / "cifar-plain.npz", {k: v.numpy() for k, v in baseline.state_dict().items()}, {})
    cifar.own_names(Settings(data_dir=None, work=tmp_path))
    model = ResNet(blocks=1).eval()
    start_from(model, tmp_path / "cifar-backbone.npz")
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    scaled = (image / 255.0 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.inference_mode():
        assert torch.allclose(model(scaled), baseline(image)[-1], atol=1e-4)


def test_frozen_shows_cost_and_time_and_draws_both(tmp_path: Path) -> None:
    curve = {"0.5": {"accuracy": 0.7, "cost": 0.51}, "0.9": {"accuracy": 0.79, "cost": 0.88}}
    taken = {f"{name}, {budget}": [10.0, 30.0, 20.0] for name in ("alone", "combined") for budget in curve}
    steps = {
        "classifier": {"train_rows": 10_000, "penalty": 0.001, "validation_accuracy": 0.8},
        "exits": judged(curves={"alone": curve, "combined": curve}),
        "times": {"rounds": {"exits": {"without_exits": [40.0], **taken}}},
    }
    text = frozen.section(steps)
    assert "| without exits | 80.00 | 100.0 | 40 | 80.00 | 100.0 | 40 |" in text
    assert "| at 50 % | 70.00 | 51.0 | 20 | 70.00 | 51.0 | 20 |" in text
    frozen.plot(steps, tmp_path)
    first = (tmp_path / frozen.PLOT).read_text()
    frozen.plot(steps, tmp_path)
    assert first == (tmp_path / frozen.PLOT).read_text() and "mean time per row" in first
    assert "more accurate than the last one" not in text
    steps["exits"]["exits"] = [0.81, 0.8]
    assert "Exits 0, counted from 0, are more accurate than the last one." in " ".join(frozen.section(steps).split())
    assert frozen.section({}) == "Not measured yet."


RUNS = {**blenet.runs(), **cifar.RUNS, "frozen": frozen.RUN}


@pytest.mark.parametrize("name", [*cifar.RUNS, "frozen", "seed 1", "LeNet-5 (6/16), seed 1", *methods.METHODS])
def test_every_run_has_a_recipe_that_holds(name: str, tmp_path: Path) -> None:
    if name in methods.METHODS:
        recipe, changes = RECIPES / "fashion-small.yaml", {f"training.{k}": v for k, v in methods.METHODS[name].items()}
    else:
        recipe, changes = RUNS[name].recipe, dict(RUNS[name].changes)
    run = Run(name="one", recipe=recipe, changes=changes)
    loaded = load_recipe(written(run, Settings(data_dir=None, work=tmp_path)))
    assert loaded.recipe.training.epochs > 0
    factory = loaded.recipe.model.factory
    assert "/" not in factory or (tmp_path / factory.partition(":")[0]).is_file(), "weights would name a machine's path"
