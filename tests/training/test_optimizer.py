from typing import Any

import pytest
import torch
from torch import nn

from training.methods.joint import JointTraining
from training.optimizer import make_optimizer, set_rate


def _rates(steps: int, **settings: Any) -> list[tuple[float, float]]:
    """Learning rate and momentum of every step."""
    given = JointTraining(epochs=1, **settings)
    optimizer = make_optimizer(nn.Linear(2, 2).parameters(), given)
    found = []
    for step in range(steps):
        set_rate(optimizer, given, step, steps)
        (group,) = optimizer.param_groups
        found.append((group["lr"], group["betas"][0] if "betas" in group else group["momentum"]))
    return found


@pytest.mark.parametrize("steps", [5, 40])
def test_one_cycle_is_torchs(steps: int) -> None:
    optimizer = torch.optim.AdamW(nn.Linear(2, 2).parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=steps)
    for rate, momentum in _rates(steps, learning_rate=0.02):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        assert momentum == pytest.approx(optimizer.param_groups[0]["betas"][0], rel=1e-9)
        optimizer.step()
        if schedule.last_epoch < steps - 1:
            schedule.step()


def test_sgd_falls_along_half_a_cosine() -> None:
    rates = [rate for rate, momentum in _rates(10, optimizer="sgd") if momentum == 0.9]
    assert rates[0] == 0.1 and rates[5] == pytest.approx(0.05) and 0 < rates[-1] < 0.01
    assert rates == sorted(rates, reverse=True) and len(rates) == 10
    assert _rates(2, optimizer="sgd", momentum=0.0, learning_rate=0.5)[0] == (0.5, 0.0)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_may_be_short(steps: int, optimizer: str) -> None:
    rates = _rates(steps, optimizer=optimizer)
    assert all(rate >= 0 for rate, _ in rates) and max(rate for rate, _ in rates) > 0


def test_weight_decay() -> None:
    for settings, decay in (
        ({}, 0.01),
        ({"optimizer": "sgd"}, 0.0005),
        ({"weight_decay": 0.2}, 0.2),
        ({"optimizer": "sgd", "weight_decay": 0.0}, 0.0),
    ):
        given = JointTraining(epochs=1, **settings)  # type: ignore[arg-type]
        assert make_optimizer(nn.Linear(2, 2).parameters(), given).param_groups[0]["weight_decay"] == decay
