"""Do exits help a deep network to learn? Plain networks at three depths, with and without exits.

The survey (Scardapane et al., 2020) says that exits counter over-fitting and vanishing gradients. The networks here
have neither skip connections nor batch norm, so that nothing else does: convolutions of one width, ReLU, PyTorch's own
initial weights.

Tensor names carry their axes: B rows of a batch, C channels, H height, W width, N rows of a split.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calibration.data.examples import Examples
from calibration.datasets import load_test, load_train
from calibration.settings import DataSettings
from results.page import table
from results.runs import Settings
from results.stats import over_seeds
from results.store import Store

TITLE = "Exits and depth"
DEPTHS = (8, 16, 24)
SEEDS = (0, 1, 2)
_DATA = DataSettings(dataset="fashion-mnist", validation=1, tune=1, calibration=1)
_ROWS, _EPOCHS, _BATCH, _RATE = 10_000, 4, 128, 0.001
_WIDTH, _EXITS, _EARLY = 24, 4, 0.3  # exits with the last one; weight of the others' losses
_STEPS = 50  # at either end of the training, over which gradients are averaged


class Plain(nn.Module):
    """A stem that leaves 7 x 7 places, then `depth` convolutions; a linear exit behind every quarter of them."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, _WIDTH, 4, stride=4)
        self.layers = nn.ModuleList(nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1) for _ in range(depth))
        self.heads = nn.ModuleList(nn.Linear(_WIDTH * 49, 10) for _ in range(_EXITS))

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Logits [B, 10] of every exit."""
        x_BCHW, logits = F.relu(self.stem(image_BCHW)), list[Tensor]()
        for number, layer in enumerate(self.layers, start=1):
            x_BCHW = F.relu(layer(x_BCHW))
            if number % (len(self.layers) // _EXITS) == 0:
                logits.append(self.heads[len(logits)](x_BCHW.flatten(1)))
        return logits


def train(store: Store, settings: Settings) -> None:
    """Train whatever is not done yet."""
    for seed, depth, exits in itertools.product(SEEDS, DEPTHS, (False, True)):
        step = f"depth {depth}, {'with' if exits else 'without'} exits, seed {seed}"
        store.once(step, lambda d=depth, e=exits, s=seed: _trained(d, e, s, settings))  # type: ignore[misc]


def time(store: Store, settings: Settings) -> None:
    """Nothing is timed."""


def _trained(depth: int, exits: bool, seed: int, settings: Settings) -> dict[str, Any]:
    train_split, test = load_train(_DATA, settings.data_dir), load_test(_DATA, settings.data_dir)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(seed)
    rng = np.random.Generator(np.random.PCG64(seed))
    rows_N = rng.permutation(len(train_split))[:_ROWS]
    model = Plain(depth)
    steps = _EPOCHS * (_ROWS // _BATCH)
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    first, norms, losses = next(model.layers[0].parameters()), list[float](), list[float]()
    for _ in range(_EPOCHS):
        order_N = rng.permutation(rows_N)
        for at in range(0, _ROWS - _BATCH + 1, _BATCH):
            part = order_N[at : at + _BATCH]
            logits = model(_images(train_split, part))
            each = [F.cross_entropy(one, torch.from_numpy(train_split.labels_N[part])) for one in logits]
            loss = each[-1] + (_EARLY * torch.stack(each[:-1]).sum() if exits else 0.0)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norms.append(float(torch.linalg.vector_norm(first.grad)))
            losses.append(float(each[-1]))
            optimizer.step()
            schedule.step()
    return {
        "accuracy": _accuracies(model, test),
        "first_layer_gradient": {
            "start": float(np.mean(norms[:_STEPS])),
            "end": float(np.mean(norms[-_STEPS:])),
        },
        "train_loss_last_exit": float(np.mean(losses[-_STEPS:])),
        "n": len(test),
    }


def _images(split: Examples, part: Any) -> Tensor:
    return torch.from_numpy(split.inputs["image"][part]).float().div(255.0).sub(0.286).div(0.353)


def _accuracies(model: Plain, test: Examples) -> list[float]:
    right = torch.zeros(_EXITS)
    with torch.inference_mode():
        for at in range(0, len(test), 1000):
            part = slice(at, at + 1000)
            labels_B = torch.from_numpy(test.labels_N[part])
            right += torch.stack([(one.argmax(1) == labels_B).sum() for one in model(_images(test, part))])
    return [float(one) / len(test) for one in right]


def section(steps: dict[str, dict[str, Any]]) -> str:
    """The table from what is stored."""
    rows = []
    for depth, exits in itertools.product(DEPTHS, ("without", "with")):
        found = [one for step, one in steps.items() if step.startswith(f"depth {depth}, {exits} exits")]
        if not found:
            continue
        gradients = [one["first_layer_gradient"] for one in found]
        rows.append(
            [
                str(depth),
                exits,
                str(len(found)),
                str(over_seeds([100 * one["accuracy"][-1] for one in found])),
                " / ".join(f"{100 * one['accuracy'][-1]:.1f}" for one in found),
                f"{np.mean([one['start'] for one in gradients]):.1e}",
                f"{np.mean([one['end'] for one in gradients]):.1e}",
                f"{np.mean([one['train_loss_last_exit'] for one in found]):.3f}",
            ]
        )
    header = (
        *("convolutions", "exits", "seeds", "last exit, accuracy %", "per seed"),
        *("gradient, first 50 steps", "gradient, last 50 steps", "last exit, training loss"),
    )
    return f"{_ABOUT}\n\n{table(header, rows)}"


_ABOUT = f"""\
Fashion-MNIST, {_ROWS:,} rows of the train split, {_EPOCHS} epochs, no augmentation; 10,000 official test images. Plain
networks of {_WIDTH} channels on 7 x 7 places: neither skip connections nor batch norm, PyTorch's initial weights, Adam
with a one-cycle rate to {_RATE}. *With* exits: {_EXITS - 1} linear exits at even depths, their losses weighted
{_EARLY}. *Gradient*: norm of the loss's gradient at the first of the convolutions, mean over steps and seeds. `±` is
half of the 95 % interval over seeds (Student's t)."""
