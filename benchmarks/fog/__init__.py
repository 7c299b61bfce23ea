"""Three tiers behind emulated links, beside what one could do instead of early exits.

`python -m benchmarks fog` measures the whole map; `python -m benchmarks.fog.run --minutes 4` as many of its cells as
fit, and goes on from there the next time.
"""

from __future__ import annotations

from benchmarks.results import Document


def run(*, quick: bool) -> Document:
    """Measure and save."""
    from benchmarks.fog import run as measuring

    document = measuring.run(quick=quick)
    assert document is not None
    return document


def tables(document: Document) -> str:
    """The page's tables."""
    from benchmarks.fog.tables import tables as of

    return of(document)
