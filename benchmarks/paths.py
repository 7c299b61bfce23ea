"""Where the benchmarks find and leave things, all inside the checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
RESULTS = HERE / "results"
BUNDLE = ROOT / "bundles" / "mnist-lenet"
IMAGES = ROOT / "examples" / "mnist"
PEERS = ROOT / ".venv-bench"  # one environment per peer
BUILT = ROOT / "build" / "bench"  # networks and configurations made on the way
PAGE = ROOT / "docs" / "performance.md"


def shown(path: Path) -> str:
    """A path as results may carry it: relative to the checkout."""
    return str(path.relative_to(ROOT))
