"""The map: how much quicker offramp is than the best of the others, per link, share and number."""

from __future__ import annotations

from typing import Any

from benchmarks.fog.cells import MBITS, ROUND_TRIPS_MS, SHARES, Cell
from benchmarks.fog.numbers import OVERALL
from benchmarks.fog.page import WIN
from benchmarks.results import Document

SHAPE = (len(SHARES), len(OVERALL))


def draw(axes: Any, document: Document) -> None:
    """One panel per share (rows) and number (columns); frames mark gains of 1.3x and more."""
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    for across, share in zip(axes, SHARES, strict=True):
        for axis, name in zip(across, OVERALL, strict=True):
            cells = [[Cell(share=share, mbit=m, round_trip_ms=ms).name for ms in ROUND_TRIPS_MS] for m in MBITS]
            gains = [[_gain(document, each, name) for each in row] for row in cells]
            axis.imshow(gains, cmap="RdYlGn", norm=LogNorm(0.5, 2.0), aspect="auto", origin="lower")
            for y, row in enumerate(gains):
                for x, gain in enumerate(row):
                    if gain != gain:
                        axis.text(x, y, "not measured", ha="center", va="center", fontsize=6, color="grey")
                        continue
                    axis.text(x, y, f"{gain:.2f}x", ha="center", va="center", fontsize=8)
                    if gain >= WIN:
                        axis.add_patch(Rectangle((x - 0.48, y - 0.47), 0.96, 0.94, fill=False, linewidth=1.4))
            axis.set_xticks(range(len(ROUND_TRIPS_MS)), [f"{ms} ms" for ms in ROUND_TRIPS_MS])
            axis.set_yticks(range(len(MBITS)), [f"{m} Mbit/s" for m in MBITS])
            axis.set_title(f"{name}, device {share:g} core")
            axis.tick_params(labelleft=name == next(iter(OVERALL)), length=0)


def _gain(document: Document, cell: str, name: str) -> float:
    one = document["cells"].get(cell)
    return float(one["gains"][name]["gain"]) if one else float("nan")
