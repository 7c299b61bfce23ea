"""Plots of results for docs/performance.md, as SVG that changes only when the numbers do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import batching, hop, resnet, scale
from benchmarks.fog import plot as fog
from benchmarks.paths import PAGE
from benchmarks.results import Document

_OURS, _THEIRS = "#1f6f8b", "#b0b7bd"


def plot(name: str, document: Document) -> None:
    """Draw the plot of a benchmark, where it has one."""
    if name not in _PLOTS:
        return
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "offramp", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    rows, columns = _SHAPES.get(name, (1, 2))
    figure, axes = pyplot.subplots(rows, columns, figsize=(9, 3.2 if rows == 1 else 2.6 * rows), layout="constrained")
    _PLOTS[name](axes, document)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
    figure.savefig(PAGE.parent / f"performance-{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


def _local(axes: Any, document: Document) -> None:
    """Latency at one client and throughput at 32, per server."""
    names = [name for name, each in document["contenders"].items() if each["state"] == "measured"][::-1]
    colours = [_OURS if name.startswith("offramp") else _THEIRS for name in names]
    for axis, place, what, title in (
        (axes[0], "1", "p50_us", "p50 at 1 client, us (log)"),
        (axes[1], "32", "rate", "requests/s at 32 clients"),
    ):
        values = [document["medians"][f"{name}, json, {place}"][what]["median"] for name in names]
        bars = axis.barh(names, values, color=colours)
        axis.bar_label(bars, [f"{value:,.0f}" for value in values], padding=2, fontsize=7)
        axis.set_title(title)
    axes[0].set_xscale("log")
    axes[0].minorticks_off()  # their labels overlap
    axes[1].tick_params(labelleft=False)
    axes[1].locator_params(axis="x", nbins=5)


def _hop(axes: Any, document: Document) -> None:
    """Added latency against the payload, and its ratio to the bare stream."""
    places = dict.fromkeys(cell.split(", ")[-1] for cell in document["medians"])
    for place, style in zip(places, ("-", "--"), strict=False):
        cells = [f"{size} KB, 1 in flight, {place}" for size in hop.SIZES]
        for name, colour in (("offramp", _OURS), ("bare", _THEIRS)):
            values = [document["medians"][f"{name}, {cell}"]["added_us"]["median"] for cell in cells]
            axes[0].plot(hop.SIZES, values, style, color=colour, marker="o", label=f"{name}, {place}")
        ratios = [document["ratios"][f"added_us, {cell}"]["median"] for cell in cells]
        axes[1].plot(hop.SIZES, ratios, style, color=_OURS, marker="o", label=place)
    for axis, title in ((axes[0], "added p50, us"), (axes[1], "offramp to the bare stream")):
        axis.set_xscale("log", base=2)
        axis.set_xticks(hop.SIZES, [str(size) for size in hop.SIZES])
        axis.set(title=title, xlabel="activation, KB")
        axis.legend(fontsize=7)
    axes[0].set_yscale("log")
    axes[1].set_ylim(bottom=0)


def _batching(axes: Any, document: Document) -> None:
    """Rows per second against the share that leaves, for both kinds of callers."""
    medians = document["medians"]
    for axis, who in zip(axes, batching.CALLERS, strict=True):
        axis.plot(resnet.SHARES, [medians[f"ideal, {s}"]["rate"]["median"] for s in resnet.SHARES], "k:", label="ideal")
        for kind, style in (("tier", "-"), ("server", "--")):
            values = [medians[f"{kind}, {share}, {who}"]["rate"]["median"] for share in resnet.SHARES]
            axis.plot(resnet.SHARES, values, style, color=_OURS, marker="o", label=kind)
            without = medians[f"{kind}, no exits, {who}"]["rate"]["median"]
            axis.axhline(without, color=_THEIRS, linestyle=style, label=f"{kind} without exits")
        axis.set(title=who, xlabel="% leaving at each exit", ylabel="rows/s", ylim=(0, None))
    axes[0].legend(fontsize=7)


def _scale(axes: Any, document: Document) -> None:
    """Throughput by the number of devices, and rows per second by the rows of a request."""
    for axis, of, counts, names, title in (
        (axes[0], "devices", scale.DEVICES, {"offramp": "offramp", "bare": "bare streams"}, "requests/s on one edge"),
        (axes[1], "rows", scale.ROWS, {"offramp": "offramp", "floor": "floor"}, "rows/s, one client"),
    ):
        for name, label in names.items():
            values = [document["medians"][f"{of}, {name}, {n}"]["rate"]["median"] for n in counts]
            axis.plot(counts, values, color=_OURS if name == "offramp" else _THEIRS, marker="o", label=label)
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, [str(n) for n in counts])
        axis.set(title=title, ylim=(0, None))
        axis.legend(fontsize=7)
    axes[0].set_xlabel("devices, one request in flight each")
    axes[1].set_xlabel("rows per request")


def _soak(axes: Any, document: Document) -> None:
    """Time and memory per request over a million requests."""
    found = document["rounds"]["part"]
    each = document["settings"]["requests"] / len(found) / 1e6
    upto = [each * (part + 1) for part in range(len(found))]
    for axis, what, title in ((axes[0], "us", "us per request, one door"), (axes[1], "mb", "RSS, MB")):
        values = [part[what] for part in found]
        axis.plot(upto, values, color=_OURS, marker="o")
        axis.set(title=title, xlabel="million requests so far", ylim=(0, 1.2 * max(values)))


_PLOTS: dict[str, Callable[[Any, Document], None]] = {
    "local": _local, "hop": _hop, "batching": _batching, "scale": _scale, "soak": _soak,
    "fog": fog.draw, "mobilenet": fog.draw,
}  # fmt: skip
_SHAPES = {"fog": fog.SHAPE, "mobilenet": fog.SHAPE}
