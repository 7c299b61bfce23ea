"""A million requests through one door: time and memory per request must stay where they are.

A device with its REST door, asked in process and answered by its first exit. `python -m benchmarks soak`.
"""

from __future__ import annotations

from benchmarks.children import python
from benchmarks.paths import BUILT
from benchmarks.results import Document, Recorder
from benchmarks.tables import number, table
from benchmarks.tiers import Tiers

PARTS = 10
_WARM = 2_000


def run(*, quick: bool) -> Document:
    """Measure and save."""
    count = 10_000 if quick else 1_000_000
    recorder = Recorder("soak", rounds=PARTS, requests=count)
    tiers = Tiers("soak", {"device": 1, "edge": "rest"})
    worker = python("benchmarks.scale_worker", "soak", str(tiers.config), piped=True, log=BUILT / "soak.log")
    try:
        worker.ask(count=_WARM)
        for each in range(PARTS):
            recorder.add("part", **worker.ask(count=count // PARTS))
            recorder.round_done(each, PARTS)
    finally:
        worker.stop()
    return recorder.save(keep=not quick)


def tables(document: Document) -> str:
    """The page's table."""
    each = document["settings"]["requests"] // PARTS
    rows = [
        [f"{each * part:,} to {each * (part + 1):,}", number(found["us"]), f"{found['mb']:.1f}"]
        for part, found in enumerate(document["rounds"]["part"])
    ]
    return table(["requests", "us per request", "RSS MB"], rows)
