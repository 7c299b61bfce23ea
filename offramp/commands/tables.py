"""Tables on a terminal, and the same columns in plain text where there is none."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

Rows = Sequence[Sequence[str]]


def print_tables(title: str, tables: Sequence[tuple[str, Sequence[str], Rows]]) -> None:
    """Print a title and titled tables; columns that hold numbers are aligned to the right."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width: do not cut what a program reads
    if title:
        console.print(title, style="bold", soft_wrap=True)
    for name, columns, rows in tables:
        table = Table(title=name or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for index, column in enumerate(columns):
            cells = [row[index] for row in rows]
            table.add_column(
                column, justify="right" if cells and all(map(_numeric, cells)) else "left", overflow="fold"
            )
        for row in rows:
            table.add_row(*row)
        console.print(table)


def _numeric(cell: str) -> bool:
    digits = cell.replace(",", "").replace(" ms", "").replace("%", "").removeprefix("-")
    return not digits or digits.replace(".", "", 1).isdigit()
