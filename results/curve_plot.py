"""Accuracy against cost as a picture: an SVG that changes only when the numbers do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SHAPES = "s*D^v"
_COLOURS = ("#1f6f8b", "#d1783c", "#6b8e23", "#8b6fa8", "#b03a5b", "#5a5a5a", "#c2a21d")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes.

    `lines` are drawn through their points, `marks` are single networks; both by name, x and y, accuracies in percent.
    """

    x: str  # label of the axis
    lines: Mapping[str, Sequence[tuple[float, float]]]
    marks: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


def draw_curve(path: Path, panels: Sequence[Panel]) -> None:
    """Draw the panels beside each other, with one legend; names that they share have one colour or shape."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "offramp", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(4.6 * len(panels), 3.6), layout="constrained", sharey=True, squeeze=False
    )
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    marks = list(dict.fromkeys(name for panel in panels for name in panel.marks))
    for panel, axis in zip(panels, axes[0], strict=True):
        for name, points in panel.lines.items():
            x, y = zip(*sorted(points), strict=True)
            axis.plot(x, y, "-o", ms=3.5, color=_COLOURS[names.index(name) % len(_COLOURS)], label=name)
        for name, points in panel.marks.items():
            x, y = zip(*points, strict=True)
            axis.plot(x, y, _SHAPES[marks.index(name) % len(_SHAPES)], ms=6, mfc="none", color="0.25", label=name)
        axis.set_xlabel(panel.x)
        axis.set_xlim(left=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("accuracy on the test split, %")
    handles = {label: h for axis in axes[0] for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2 * len(panels), fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
