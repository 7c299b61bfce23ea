"""The training loop: phase after phase, epoch after epoch; the best epoch of each phase by validation is kept.

Tensor names carry their axes: B rows of a batch, N rows of a split, C classes.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from calibration.datasets import Examples
from calibration.notes import NOTE
from common.errors import ConfigError
from common.types import Array
from training.augment import Change, changes_for
from training.checkpoint import Checkpoint, Resumed, State
from training.fits import check_fits
from training.history import Epoch, History
from training.losses import cross_entropy
from training.network import MultiExitNetwork
from training.optimizer import make_optimizer, set_rate
from training.phase import Phase, answer
from training.precision import Precision, chosen
from training.progress import Reporter
from training.settings import TrainingSettings

_ROWS = 1000  # of a batch of validation


def total_steps(network: MultiExitNetwork, train_split: Examples, settings: TrainingSettings) -> int:
    """Batches of a whole training run."""
    per_epoch = len(train_split) // settings.batch_rows(len(train_split))
    return per_epoch * sum(phase.epochs for phase in settings.phases(network))


def train(
    network: MultiExitNetwork,
    train_split: Examples,
    validation_split: Examples,
    settings: TrainingSettings,
    *,
    threads: int,
    report: Reporter,
    checkpoint: Path | None = None,
) -> History:
    """Train in place and leave the weights of the best epoch in the network, in evaluation mode.

    Args:
        network: with exits; gets what the way to train needs besides, such as gates.
        train_split: what weights are fitted to.
        validation_split: what tells the best epoch.
        settings: of a way to train; see `training.methods`.
        threads: of torch.
        report: takes the news.
        checkpoint: file (.npz) that keeps the state after every epoch, and where a run that was cut off goes on from.
            It stays until whoever called has put the weights in safety.

    Raises:
        ConfigError: when the settings or the data do not fit the network, or the checkpoint is another run's.
    """
    check_fits(network, train_split, validation_split, settings)
    torch.set_num_threads(threads)
    torch.manual_seed(settings.seed)
    settings.prepare(network)
    phases = settings.phases(network)
    kept = Checkpoint(checkpoint, network, (train_split, validation_split), settings) if checkpoint else None
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = _Run(network, train_split, validation_split, settings, phases, report, kept)
    report.line(f"training in {run.precision}, {threads} {'thread' if threads == 1 else 'threads'}")
    run.resume()
    try:
        for number in range(run.state.phase, len(phases)):
            with _only(phases[number], network) as parameters:
                run.phase(number, parameters)
    except ConfigError:
        if kept is not None:
            kept.remove()
        raise
    network.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    assert run.state.best is not None
    return History(epochs=tuple(run.state.epochs), best=run.state.best)


class _Run:
    """A training run, and how far it has come."""

    def __init__(
        self,
        network: MultiExitNetwork,
        train_split: Examples,
        validation_split: Examples,
        settings: TrainingSettings,
        phases: tuple[Phase, ...],
        report: Reporter,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.network = network
        self.train_split = train_split
        self.validation_split = validation_split
        self.settings = settings
        self.phases = phases
        self.report = report
        self.checkpoint = checkpoint
        self.precision: Precision = chosen(settings.precision, network)
        self.generator = torch.Generator().manual_seed(settings.seed)  # of batches and distortions
        self.change = changes_for(settings.augment, network.image)
        self.per_epoch = len(train_split) // settings.batch_rows(len(train_split))  # batches
        self.total = sum(phase.epochs for phase in phases)
        self.state = State()
        self.resumed: Resumed | None = None

    def resume(self) -> None:
        """Take up where a run that was cut off has left its state, if it has."""
        self.resumed = self.checkpoint.load(self.generator) if self.checkpoint is not None else None
        if self.resumed is None:
            return
        self.state = self.resumed.state
        self.report.line(f"going on after epoch {len(self.state.epochs)} of {self.total}")
        self.report.advance(self.per_epoch * len(self.state.epochs))

    def phase(self, number: int, parameters: tuple[nn.Parameter, ...]) -> None:
        """Run a phase and leave the weights of its best epoch in the network."""
        optimizer = make_optimizer(parameters, self.settings)
        if self.resumed is not None:
            self.resumed.restore(optimizer, parameters)
            self.resumed = None
        else:
            self.state = State(phase=number, epochs=self.state.epochs)
        while not self.state.over:
            self._one_more(self.phases[number], optimizer)
            if self.checkpoint is not None:
                self.checkpoint.save(self.state, optimizer, self.generator)
        self.network.load_state_dict(self.state.best_weights)

    def _one_more(self, phase: Phase, optimizer: torch.optim.Optimizer) -> None:
        """Train and judge one epoch."""
        state, started = self.state, time.monotonic()
        train_loss = self._epoch(phase, optimizer)
        epoch = validate(self.network, self.validation_split, phase, len(state.epochs) + 1, train_loss)
        state.epochs.append(epoch)
        state.done += 1
        if state.best is None or epoch.loss < state.best.loss:
            state.best, state.best_weights = epoch, copy.deepcopy(self.network.state_dict())
        left = phase.epochs - state.done + sum(later.epochs for later in self.phases[state.phase + 1 :])
        self.report.line(_line(epoch, self.total, left, time.monotonic() - started))
        state.over = state.done == phase.epochs
        if self.settings.patience is not None and epoch.number - state.best.number >= self.settings.patience:
            self.report.line(f"phase {phase.name} stopped: no better epoch since {state.best.number}")
            state.over = True

    def _epoch(self, phase: Phase, optimizer: torch.optim.Optimizer) -> float:
        """Train one epoch; returns the mean loss of its batches."""
        self.network.eval()
        for module in phase.trains:
            module.train()
        steps, first = self.per_epoch * phase.epochs, self.per_epoch * self.state.done
        total = torch.zeros((), dtype=torch.float64)
        for step, (inputs, labels_B) in enumerate(self._batches(), start=first):
            set_rate(optimizer, self.settings, step, steps)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
                answers = answer(self.network, inputs, phase.loss.exits)
            loss = phase.loss(answers, labels_B, step / steps)
            if not torch.isfinite(loss):
                where = f"in epoch {len(self.state.epochs) + 1}"
                raise ConfigError(f"The loss became {loss.item()} {where}: lower training.learning_rate.")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if step == 0:
                self._say_what_learns_nothing(phase)
            optimizer.step()
            total += loss.detach()
            self.report.advance()
        return float(total / self.per_epoch)

    def _say_what_learns_nothing(self, phase: Phase) -> None:
        """A line when parameters that should train have no part in the loss."""
        names = {parameter: name for name, parameter in self.network.named_parameters()}
        idle = [names[parameter] for parameter in phase.parameters() if parameter.grad is None]
        if idle:
            self.report.line(
                f"{NOTE}{len(idle)} parameters learn nothing in phase {phase.name}, such as {idle[0]}: "
                "none of its exits depends on them"
            )

    def _batches(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Full batches of one epoch in random order; images are changed, what is left over is dropped."""
        split, size = self.train_split, self.settings.batch_rows(len(self.train_split))
        order = torch.randperm(len(split), generator=self.generator).numpy()
        for at in range(0, len(split) - size + 1, size):
            part = order[at : at + size]
            inputs = _tensors(self.network, split.inputs, part)
            yield (
                tuple(_changed(tensor, self.change, self.generator) for tensor in inputs),
                torch.from_numpy(split.labels_N[part]),
            )


def validate(network: MultiExitNetwork, split: Examples, phase: Phase, number: int, train_loss: float) -> Epoch:
    """Loss and accuracy of every exit on a split."""
    network.eval()
    everyone = tuple(range(len(network.exits)))
    right, losses, judged = torch.zeros(len(everyone)), torch.zeros(len(everyone)), torch.zeros(())
    with torch.inference_mode():
        for at in range(0, len(split), _ROWS):
            part = slice(at, at + _ROWS)
            labels_B = torch.from_numpy(split.labels_N[part])
            answers = answer(network, _tensors(network, split.inputs, part), everyone)
            logits = [answers.logits[exit_] for exit_ in everyone]
            right += torch.stack([(logits_BC.argmax(1) == labels_B).sum() for logits_BC in logits])
            losses += torch.stack([cross_entropy(logits_BC, labels_B) for logits_BC in logits]) * len(labels_B)
            judged += phase.loss.judge(answers, labels_B) * len(labels_B)
    return Epoch(
        number=number,
        phase=phase.name,
        train_loss=train_loss,
        loss=float(judged / len(split)),
        losses=tuple((losses / len(split)).tolist()),
        accuracy=tuple((right / len(split)).tolist()),
    )


@contextmanager
def _only(phase: Phase, network: MultiExitNetwork) -> Iterator[tuple[nn.Parameter, ...]]:
    """Let the phase's parameters train and no others; afterwards, each as before."""
    parameters = phase.parameters()
    if not parameters:
        raise ConfigError(f"There is nothing to train in phase {phase.name}: none of its parameters may change.")
    trainable = {parameter: parameter.requires_grad for parameter in network.parameters()}
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield parameters
    finally:
        for parameter, before in trainable.items():
            parameter.requires_grad_(before)


def _line(epoch: Epoch, total: int, left: int, seconds: float) -> str:
    accuracy = " ".join(f"{100 * a:.2f}" for a in epoch.accuracy)
    return (
        f"epoch {epoch.number}/{total}, {epoch.phase}: validation accuracy per exit {accuracy} %, "
        f"loss {epoch.loss:.4f}, {seconds:.0f} s, about {left * seconds:.0f} s left"
    )


def _changed(tensor: Tensor, change: Change | None, generator: torch.Generator) -> Tensor:
    return change(tensor, generator) if change is not None and tensor.ndim == 4 else tensor


def _tensors(network: MultiExitNetwork, inputs: Mapping[str, Array], part: slice | Array) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(inputs[spec.name][part]) for spec in network.inputs)
