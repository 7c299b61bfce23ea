"""What a person sees while a network trains: a bar with time left, or plain lines when not on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from calibration.notes import NOTE


class Reporter(Protocol):
    """Takes news of a long piece of work."""

    def advance(self, steps: int = 1) -> None:
        """So many more steps are done."""
        ...

    def line(self, text: str) -> None:
        """Something worth a line of its own."""
        ...


class Silent:
    """Reports nothing."""

    def advance(self, steps: int = 1) -> None:
        """Do nothing."""

    def line(self, text: str) -> None:
        """Do nothing."""


class _Plain:
    def __init__(self, console: Console) -> None:
        self._console = console

    def advance(self, steps: int = 1) -> None:
        pass

    def line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


class _Notes(_Plain):
    """No progress; what is called a note is a warning."""

    def line(self, text: str) -> None:
        if text.startswith(NOTE):
            super().line(text)


class _Bar(_Plain):
    def __init__(self, progress: Progress, total: int, title: str) -> None:
        super().__init__(progress.console)
        self._progress = progress
        self._task = progress.add_task(title, total=total)

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(self._task, steps)


@contextmanager
def progress(title: str, total: int, *, quiet: bool = False) -> Iterator[Reporter]:
    """Report on `total` steps of work, on stderr; quietly, only notes."""
    console = Console(file=sys.stderr, markup=False, emoji=False)
    if quiet:
        yield _Notes(console)
    elif not console.is_terminal:
        yield _Plain(console)
    else:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as bar:
            yield _Bar(bar, total, title)
