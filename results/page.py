"""docs/results.md: one section per table, between two marks, so that each can be written again alone."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path


def write_section(path: Path, name: str, text: str) -> None:
    """Put text between the marks of a section; a file or section that is not there is begun."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before = path.read_text() if path.exists() else "# Results\n"
    section = f"{begin}\n{text.strip()}\n{end}"
    head, mark, rest = before.partition(begin)
    _, closed, tail = rest.partition(end)
    if mark and closed:
        path.write_text(f"{head}{section}{tail}")
    else:
        path.write_text(f"{before.rstrip()}\n\n{section}\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def paragraph(text: str) -> str:
    """Text in lines of 120 characters at most."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)
