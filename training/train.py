"""Joint training of a network with exits.

AdamW with a one-cycle rate (Smith and Topin, "Super-Convergence", 2019); the epoch with the lowest weighted
loss on the validation split is kept.

Tensor names carry their axes: B rows of a batch, N rows of a split, C classes.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from calibration.datasets import Examples
from common.errors import ConfigError
from common.types import Array
from training.augment import Distortion
from training.losses import exit_losses, joint_loss
from training.network import MultiExitNetwork
from training.precision import Precision, chosen
from training.progress import Reporter
from training.recipe import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What was measured on the validation split after an epoch."""

    number: int  # from 1
    loss: float  # weighted sum of the exits' mean cross-entropies
    accuracy: tuple[float, ...]  # per exit, 0..1


@dataclass(frozen=True, kw_only=True)
class History:
    """The course of a training run; the network holds the weights of `best`."""

    epochs: tuple[Epoch, ...]
    best: Epoch


def train(
    network: MultiExitNetwork,
    train_split: Examples,
    validation_split: Examples,
    settings: TrainingSettings,
    *,
    threads: int,
    report: Reporter,
) -> History:
    """Train in place and leave the weights of the best epoch in the network, in evaluation mode.

    Raises:
        ConfigError: when the settings or the data do not fit the network.
    """
    _check(network, train_split, settings)
    torch.set_num_threads(threads)
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    steps = len(train_split) // settings.batch_size
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps * settings.epochs
    )
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    precision = chosen(settings.precision, network)
    report.line(f"training in {precision}, {threads} {'thread' if threads == 1 else 'threads'}")
    epochs: list[Epoch] = []
    best, best_weights = None, {}
    for number in range(1, settings.epochs + 1):
        started = time.monotonic()
        network.train()
        for inputs, labels_B in _batches(network, train_split, settings, generator):
            loss = _loss(network, inputs, labels_B, settings, precision)
            if not torch.isfinite(loss):
                raise ConfigError(f"The loss became {loss.item()} in epoch {number}: lower training.learning_rate.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            report.advance()
        epoch = validate(network, validation_split, settings, number)
        epochs.append(epoch)
        if best is None or epoch.loss < best.loss:
            best, best_weights = epoch, copy.deepcopy(network.state_dict())
        report.line(_line(epoch, settings, time.monotonic() - started))
        if settings.patience is not None and number - best.number >= settings.patience:
            report.line(f"stopped: no better epoch since {best.number}")
            break
    assert best is not None
    network.load_state_dict(best_weights)
    network.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    return History(epochs=tuple(epochs), best=best)


def validate(network: MultiExitNetwork, split: Examples, settings: TrainingSettings, number: int) -> Epoch:
    """Loss and accuracy of every exit on a split."""
    network.eval()
    right, losses = torch.zeros(len(network.exits)), torch.zeros(len(network.exits))
    with torch.inference_mode():
        for at in range(0, len(split), 1000):
            part = slice(at, at + 1000)
            labels_B = torch.from_numpy(split.labels_N[part])
            logits = network(*_tensors(network, split.inputs, part))
            right += torch.stack([(logits_BC.argmax(1) == labels_B).sum() for logits_BC in logits])
            losses += exit_losses(logits, labels_B) * len(labels_B)
    loss = (torch.tensor(settings.exit_weights) * losses).sum() / len(split)
    return Epoch(number=number, loss=float(loss), accuracy=tuple((right / len(split)).tolist()))


def _loss(
    network: MultiExitNetwork,
    inputs: tuple[Tensor, ...],
    labels_B: Tensor,
    settings: TrainingSettings,
    precision: Precision,
) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        logits, crossing = network.forward_with_crossing(*inputs)
    return joint_loss(logits, labels_B, crossing, settings)


def _batches(
    network: MultiExitNetwork, split: Examples, settings: TrainingSettings, generator: torch.Generator
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """Full batches of one epoch in random order; images are distorted, what is left over is dropped."""
    distort = Distortion(**settings.augment.model_dump())
    order = torch.randperm(len(split), generator=generator).numpy()
    for at in range(0, len(split) - settings.batch_size + 1, settings.batch_size):
        part = order[at : at + settings.batch_size]
        inputs = _tensors(network, split.inputs, part)
        distorted = tuple(distort(tensor, generator) if tensor.ndim == 4 else tensor for tensor in inputs)
        yield distorted, torch.from_numpy(split.labels_N[part])


def _tensors(network: MultiExitNetwork, inputs: Mapping[str, Array], part: slice | Array) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(inputs[spec.name][part]) for spec in network.inputs)


def _check(network: MultiExitNetwork, split: Examples, settings: TrainingSettings) -> None:
    weights, exits = len(settings.exit_weights), len(network.exits)
    if weights != exits:
        raise ConfigError(f"training.exit_weights has {weights} numbers. The network has {exits} exits.")
    if len(split) < settings.batch_size:
        raise ConfigError(
            f"training.batch_size is {settings.batch_size}, but only {len(split)} rows are left to train on."
        )
    for spec in network.inputs:
        if spec.name not in split.inputs:
            raise ConfigError(f"The network reads {spec.name!r}. The data set has {', '.join(sorted(split.inputs))}.")
        found = split.inputs[spec.name]
        if found.dtype.name != spec.dtype or found.shape[1:] != spec.shape:
            raise ConfigError(
                f"The data set's {spec.name!r} is {found.dtype.name} {list(found.shape[1:])}. "
                f"The network takes {spec.dtype} {list(spec.shape)}."
            )
    if split.labels_N.max() >= len(network.classes):
        raise ConfigError(
            f"The data set has label {split.labels_N.max()}. The network has {len(network.classes)} classes."
        )


def _line(epoch: Epoch, settings: TrainingSettings, seconds: float) -> str:
    accuracy = " ".join(f"{100 * a:.2f}" for a in epoch.accuracy)
    left = (settings.epochs - epoch.number) * seconds
    return (
        f"epoch {epoch.number}/{settings.epochs}: validation accuracy per exit {accuracy} %, "
        f"loss {epoch.loss:.4f}, {seconds:.0f} s, about {left:.0f} s left"
    )
