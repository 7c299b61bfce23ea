"""Results as JSON: what was run, on what, how busy the machine was, every round, and the medians."""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarks.machine import load_average, machine
from benchmarks.paths import RESULTS
from benchmarks.stats import estimate, ratio

Document = dict[str, Any]
Cells = dict[str, list[dict[str, float]]]  # cell -> one set of numbers per round


class CannotRun(Exception):
    """This machine lacks what a benchmark needs; one sentence says what."""


class Recorder:
    """Collects the rounds of one benchmark.

    Args:
        name: of the benchmark; its results become `benchmarks/results/<name>.json`.
        settings: what was run, for readers.
    """

    def __init__(self, name: str, **settings: Any) -> None:
        self.name = name
        self.settings = settings
        self.notes: list[str] = []
        self._cells: Cells = {}
        self._loads: list[float] = []
        self._machine = machine()  # now: the checkout may change while this runs
        self._started = time.monotonic()

    def add(self, cell: str, **numbers: float) -> None:
        """Numbers of one cell in the current round."""
        self._cells.setdefault(cell, []).append(numbers)

    def round_done(self, number: int, of: int) -> None:
        """Note how busy the machine is, and show that something happens."""
        self._loads.append(load_average())
        print(f"  {self.name}: round {number + 1} of {of}, load {self._loads[-1]}", flush=True)

    def estimate(self, cell: str, number: str) -> dict[str, float]:
        """The median over rounds of one number."""
        return estimate([each[number] for each in self._cells[cell]]).document()

    def ratio(self, number: str, of: str, to: str) -> dict[str, float]:
        """The median over rounds of the ratio of two cells' numbers."""
        return ratio([each[number] for each in self._cells[of]], [each[number] for each in self._cells[to]]).document()

    def has(self, cell: str) -> bool:
        """Whether a cell was measured."""
        return cell in self._cells

    @property
    def cells(self) -> list[str]:
        """The cells that were measured."""
        return list(self._cells)

    def save(self, *, keep: bool, **more: Any) -> Document:
        """The document; written too where it is to be kept."""
        medians = {
            cell: {number: estimate([each[number] for each in rounds]).document() for number in rounds[0]}
            for cell, rounds in self._cells.items()
        }
        document = {
            "benchmark": self.name,
            "machine": self._machine,
            "settings": self.settings,
            "load_average": self._loads,
            "seconds": round(time.monotonic() - self._started, 1),
            "notes": self.notes,
            "medians": medians,
            **more,
            "rounds": self._cells,
        }
        document = _rounded(document)
        if keep:
            RESULTS.mkdir(parents=True, exist_ok=True)
            (RESULTS / f"{self.name}.json").write_text(json.dumps(document, indent=1) + "\n")
        return document


def _rounded(value: Any) -> Any:
    """Six significant digits are more than any of this deserves."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return value
