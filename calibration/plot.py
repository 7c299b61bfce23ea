"""The pictures of a bundle: accuracy against cost and time, and reliability diagrams."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.intervals import share_interval
from calibration.sweep import Sweep
from common.errors import ConfigError

_KINDS = {"float32": "v", "int8": "^", "backbone": "D", "static": "*"}
_COLOURS, _MARKS = 9, "ophd"  # of operating points: all colours, then all again with the next mark
_LABELS = {
    "float32": "without exits, one graph",
    "int8": "without exits, int8",
    "backbone": "same backbone, trained without exits",
    "static": "static networks",
}


def draw(result: Mapping[str, Any], curve: Sweep, path: Path) -> None:
    """Write two PNG files: accuracy against FLOPs and measured time, and `NAME-reliability.png` beside it.

    Args:
        result: what `evaluate` returns.
        curve: thresholds swept on the same split, for the picture only.
        path: of the first.

    Raises:
        ConfigError: when matplotlib is missing or a file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("Plots need matplotlib: install offramp with the extra `build`.") from None
    timed = "latency" in result
    figure = Figure(figsize=(11.5 if timed else 7.0, 4.8), layout="constrained")
    panels = figure.subplots(1, 2 if timed else 1, squeeze=False, sharey=True)[0]
    _cost(panels[0], result, curve)
    if timed:
        _time(panels[1], result)
    panels[0].set_ylabel(f"accuracy on the {result['split']} split, %")
    handles = {label: h for p in panels for h, label in zip(*p.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize="small")
    figure.suptitle(f"{result['bundle']}: accuracy against cost")
    _save(figure, path)
    _save(_reliability(Figure, result), reliability_path(path))


def reliability_path(path: Path) -> Path:
    """Where the reliability diagrams go."""
    return path.with_name(f"{path.stem}-reliability.png")


def _cost(axes: Any, result: Mapping[str, Any], curve: Sweep) -> None:
    axes.plot(
        [flops / 1e6 for flops in curve.mean_flops],
        [100 * accuracy for accuracy in curve.accuracy],
        color="0.75",
        zorder=1,
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
        axes.annotate(f"exit {e['exit']}", (e["flops"] / 1e6, 100 * e["accuracy"]), (6, -11), **_SMALL)
    best = result["oracle"]
    axes.plot(best["mean_flops"] / 1e6, 100 * best["accuracy"], "P", color="0.4", label="earliest right exit (oracle)")
    for number, (name, point) in enumerate(result["operating_points"].items()):
        _point(axes, point["mean_flops"] / 1e6, point, number, name)
        x = point["mean_flops"] / 1e6
        axes.plot(x, 100 * point["random_accuracy"], "x", color=_colour(number))
    axes.plot([], [], "x", color="0.3", label="same rates, rows by lot")
    for one in result["baselines"]:
        if "flops" in one:
            _baseline(axes, one["flops"] / 1e6, one)
    axes.set_xlabel("mean cost per row, million FLOPs")
    _dress(axes)


def _time(axes: Any, result: Mapping[str, Any]) -> None:
    times = result["latency"]
    for number, (name, point) in enumerate(result["operating_points"].items()):
        _point(axes, times[name]["mean_us"], point, number, name)
        axes.plot(
            [times[name]["mean_us"], times[name]["p99_us"]],
            [100 * point["accuracy"]] * 2,
            ":",
            color=_colour(number),
        )
    axes.plot([], [], ":", color="0.3", label="up to the 99th percentile")
    for one in result["baselines"]:
        _baseline(axes, one["latency"]["mean_us"], one)
    axes.set_xlabel("mean time per row, microseconds (batch 1, one thread, computing only)")
    _dress(axes)


def _point(axes: Any, x: float, point: Mapping[str, Any], number: int, name: str) -> None:
    low, high = (100 * end for end in point["accuracy_interval"])
    y = 100 * point["accuracy"]
    axes.errorbar(
        x,
        y,
        yerr=[[y - low], [high - y]],
        fmt=_mark(number),
        color=_colour(number),
        capsize=2,
        label=f"operating point {name}",
    )


def _baseline(axes: Any, x: float, one: Mapping[str, Any]) -> None:
    y = 100 * one["accuracy"]
    axes.plot(x, y, _KINDS[one["kind"]], color="k", mfc="none", label=_LABELS[one["kind"]])
    if one["kind"] == "static":  # of the others there is one each
        axes.annotate(one["name"], (x, y), (5, 5), **_SMALL)


def _reliability(figure_of: Any, result: Mapping[str, Any]) -> Any:
    exits = result["exits"]
    figure = figure_of(figsize=(3.4 * len(exits) + 0.6, 3.9), layout="constrained")
    for axes, leave in zip(figure.subplots(1, len(exits), squeeze=False, sharey=True)[0], exits, strict=True):
        axes.plot([0, 1], [0, 1], color="0.8", lw=1)
        for kind, colour in (("uncalibrated", "0.5"), ("calibrated", "C0")):
            bins = leave[kind]["bins"]
            confidence, accuracy = ([one[key] for one in bins] for key in ("confidence", "accuracy"))
            axes.plot(confidence, accuracy, color=colour, lw=1, alpha=0.4)
            most = max(one["rows"] for one in bins)
            axes.scatter(confidence, accuracy, [6 + 60 * one["rows"] / most for one in bins], color=colour, label=kind)
        for one in leave["calibrated"]["bins"]:
            ends = share_interval(round(one["rows"] * one["accuracy"]), one["rows"])
            axes.plot([one["confidence"]] * 2, [ends.low, ends.high], color="C0", lw=0.8, alpha=0.5)
        ece = " to ".join(f"{100 * leave[kind]['ece']:.2f}" for kind in ("uncalibrated", "calibrated"))
        axes.set_title(f"exit {leave['exit']}: ECE {ece} %", fontsize="medium")
        axes.set_xlabel("confidence")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy")
    handles = dict(zip(*figure.axes[0].get_legend_handles_labels()[::-1], strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize="small")
    figure.suptitle(
        f"{result['bundle']}: is 90 % sure 90 % right? (larger dots: more rows; bars: 95 % intervals)",
        fontsize="medium",
    )
    return figure


def _dress(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.09, y=0.09)  # for the names beside the points
    axes.grid(alpha=0.3)


def _colour(number: int) -> str:
    return f"C{number % _COLOURS + 1}"  # C0 is that of the exits


def _mark(number: int) -> str:
    return _MARKS[number // _COLOURS % len(_MARKS)]


def _save(figure: Any, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    try:
        figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None


_SMALL: dict[str, Any] = {"textcoords": "offset points", "fontsize": "x-small"}
