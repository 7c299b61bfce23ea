"""Three tiers behind emulated links, beside what one could do instead of early exits.

`python -m benchmarks fog` measures the whole map; `python -m benchmarks.fog.map --minutes 4` as many of its cells as
fit, and goes on from there the next time.
"""

from __future__ import annotations

from benchmarks.results import Document


def run(*, quick: bool) -> Document:
    """Measure and save."""
    from benchmarks.fog import map as measuring

    return measuring.run("fog", quick=quick)


def tables(document: Document) -> str:
    """The page's tables."""
    from benchmarks.fog.page import tables as of

    return of(document)
