"""The picture of a bundle: accuracy against cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.sweep import Sweep
from common.errors import ConfigError


def draw(result: Mapping[str, Any], curve: Sweep, path: Path) -> None:
    """Write a PNG: every exit alone, every operating point, and the swept curve marked as such.

    Args:
        result: what `evaluate` returns.
        curve: thresholds swept on the same split, for the picture only.
        path: the file to write.

    Raises:
        ConfigError: when matplotlib is missing or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("Plots need matplotlib: install offramp with the extra `build`.") from None
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(
        [flops / 1e6 for flops in curve.mean_flops],
        [100 * accuracy for accuracy in curve.accuracy],
        color="0.7",
        label=f"thresholds swept on the {result['split']} split (picture only)",
    )
    exits = result["exits"]
    axes.plot(
        [e["flops"] / 1e6 for e in exits],
        [100 * e["accuracy"] for e in exits],
        "s",
        color="C0",
        label="one exit for all",
    )
    for e in exits:
        axes.annotate(
            f"exit {e['exit']}", (e["flops"] / 1e6, 100 * e["accuracy"]), (6, -12), textcoords="offset points"
        )
    for number, (name, point) in enumerate(result["operating_points"].items()):
        where = (point["mean_flops"] / 1e6, 100 * point["accuracy"])
        axes.plot(*where, "o", color=f"C{number + 1}", label=f"operating point {name}")
    axes.set_xscale("log")
    axes.set_xlabel("mean cost per row, million FLOPs")
    axes.set_ylabel(f"accuracy on the {result['split']} split, %")
    axes.set_title(f"{result['bundle']}: accuracy against cost")
    axes.legend(loc="lower right", fontsize="small")
    axes.grid(alpha=0.3)
    try:
        figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None
