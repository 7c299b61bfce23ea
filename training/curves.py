"""The picture of a training run: loss and accuracy of every exit, epoch by epoch."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.errors import ConfigError
from training.history import History


def draw_curves(history: History, path: Path, *, title: str) -> None:
    """Write a PNG; lines across mark where a phase begins, a dotted one the epoch that was kept.

    Raises:
        ConfigError: when the file cannot be written.
    """
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    numbers = [epoch.number for epoch in history.epochs]
    mark = "." if len(numbers) < 40 else ""
    trained = [epoch.train_loss for epoch in history.epochs]
    loss.plot(numbers, trained, mark + "-", color="0.7", label="train, all exits together")
    for number in range(len(history.best.accuracy)):
        how = {"color": f"C{number}", "label": f"exit {number}, validation"}
        loss.plot(numbers, [epoch.losses[number] for epoch in history.epochs], mark + "-", **how)
        accuracy.plot(numbers, [100 * epoch.accuracy[number] for epoch in history.epochs], mark + "-", **how)
    loss.set_ylabel("loss, nats")
    loss.set_yscale("log")
    accuracy.set_ylabel("accuracy on the validation split, %")
    begins = [b.number - 0.5 for a, b in pairwise(history.epochs) if a.phase != b.phase]
    for axes in (loss, accuracy):
        for begin in begins:
            axes.axvline(begin, color="0.5", linewidth=0.8)
        axes.axvline(history.best.number, color="0.5", linewidth=0.8, linestyle=":")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    figure.suptitle(f"{title}: training ({', '.join(dict.fromkeys(epoch.phase for epoch in history.epochs))})")
    try:
        figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None
