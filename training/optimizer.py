"""The optimisers, and the learning rate over a phase.

- adamw: with a one-cycle rate (Smith and Topin, "Super-Convergence", 2019): up to the highest rate over the first
  30 % of the steps, then down to nearly nothing, momentum the other way.
- sgd: Nesterov's momentum and a rate that falls along half a cosine (Loshchilov and Hutter, "SGDR", 2017), as
  residual networks are mostly trained.

A rate is a function of the step alone, so that a run that goes on after it was cut off needs to remember nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from training.settings import TrainingSettings

_RATE = {"adamw": 0.004, "sgd": 0.1}
_DECAY = {"adamw": 0.01, "sgd": 0.0005}
_RISE, _START, _END = 0.3, 25.0, 1e4  # share of the steps that the rate rises; its divisors at both ends
_MOMENTUM = (0.85, 0.95)  # of adamw's first moment: at the highest rate, and at the ends


def make_optimizer(parameters: Iterable[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimiser of a phase, before its first step."""
    name = settings.optimizer
    decay = _DECAY[name] if settings.weight_decay is None else settings.weight_decay
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=highest_rate(settings), weight_decay=decay)
    momentum = 0.9 if settings.momentum is None else settings.momentum
    return torch.optim.SGD(
        parameters, lr=highest_rate(settings), momentum=momentum, nesterov=momentum > 0, weight_decay=decay
    )


def highest_rate(settings: TrainingSettings) -> float:
    """The highest learning rate of a phase."""
    return _RATE[settings.optimizer] if settings.learning_rate is None else settings.learning_rate


def set_rate(optimizer: torch.optim.Optimizer, settings: TrainingSettings, step: int, steps: int) -> None:
    """Set the learning rate for a step of a phase.

    Args:
        optimizer: of the phase.
        settings: for its kind and its highest rate.
        step: from 0.
        steps: of the whole phase.
    """
    highest = highest_rate(settings)
    for group in optimizer.param_groups:
        if settings.optimizer == "sgd":
            group["lr"] = _between(highest, 0.0, step / steps)
        else:
            group["lr"], beta = one_cycle(highest, step, steps)
            group["betas"] = (beta, group["betas"][1])


def one_cycle(highest: float, step: int, steps: int) -> tuple[float, float]:
    """Learning rate and momentum of a step."""
    low, high = _MOMENTUM
    top = _RISE * steps - 1
    if step <= top:
        done = step / top if top > 0 else 1.0
        return _between(highest / _START, highest, done), _between(high, low, done)
    done = (step - top) / max(steps - 1 - top, 1e-9)
    return _between(highest, highest / _START / _END, done), _between(low, high, done)


def _between(first: float, last: float, done: float) -> float:
    """Along half a cosine."""
    return last + (first - last) / 2 * (1 + math.cos(math.pi * min(done, 1.0)))
