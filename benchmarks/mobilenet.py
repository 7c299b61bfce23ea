"""The map of links of `benchmarks.fog`, for a MobileNetV2 that was given exits."""

from __future__ import annotations

from benchmarks.results import Document


def run(*, quick: bool) -> Document:
    """Measure and save."""
    from benchmarks.fog import map as measuring

    return measuring.run("mobilenet", quick=quick)


def tables(document: Document) -> str:
    """The page's tables."""
    from benchmarks.fog.page import tables as of

    return of(document)
