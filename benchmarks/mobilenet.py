"""The map of links of `benchmarks.fog`, for a MobileNetV2 that was given exits."""

from __future__ import annotations

from benchmarks.fog import tables
from benchmarks.results import Document

__all__ = ["run", "tables"]


def run(*, quick: bool) -> Document:
    """Measure and save."""
    from benchmarks.fog import map as measuring

    return measuring.run("mobilenet", quick=quick)
