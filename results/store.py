"""What was measured, step by step: one JSON file per table, written the moment a step is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Document = dict[str, Any]


class Store:
    """The finished steps of one table.

    Args:
        path: of the JSON file; begun when the first step is done.
        report: takes one line per step.
    """

    def __init__(self, path: Path, report: Callable[[str], None] = print) -> None:
        self.path = path
        self._report = report

    def steps(self) -> dict[str, Document]:
        """Every finished step, in the order in which they were measured."""
        return dict(json.loads(self.path.read_text())) if self.path.exists() else {}

    def get(self, step: str) -> Document | None:
        """What a step found, or None while it is not done."""
        return self.steps().get(step)

    def once(self, step: str, measure: Callable[[], Document]) -> Document:
        """What a step found; measured only where it is not done yet."""
        if (found := self.get(step)) is not None:
            return found
        self._report(f"{self.path.stem}: {step}")
        document: Document = _rounded(measure())
        steps = self.steps() | {step: document}  # read again: two runs may share a file
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.write_text(json.dumps(steps, indent=1) + "\n")
        partial.replace(self.path)
        return document


def _rounded(value: Any) -> Any:
    """Six significant digits are more than any of this deserves."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
