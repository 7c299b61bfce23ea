"""Markdown tables and the way numbers are written in them."""

from __future__ import annotations

from collections.abc import Sequence

Spread = dict[str, float]  # median, low, high


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, columns padded so that the source reads well too."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [_line(head, widths), "| " + " | ".join("-" * width for width in widths) + " |"]
    return "\n".join([*lines, *(_line(row, widths) for row in rows)])


def number(value: float) -> str:
    """Three significant digits, thousands with a comma."""
    if abs(value) >= 1000:
        digits = 3 - len(str(int(abs(value))))
        return f"{round(value, digits):,.0f}"
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e" in text else text


def spread(value: Spread, unit: str = "") -> str:
    """A median with its interval: 1.24 (1.22-1.27)."""
    return f"{number(value['median'])}{unit} ({number(value['low'])}-{number(value['high'])})"


def times(value: Spread) -> str:
    """A ratio with its interval: 1.24x (1.22-1.27)."""
    return spread(value, "x")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
