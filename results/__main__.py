"""`python -m results [TABLES]`: measure tables that take longer than a test, and write docs/results.md.

What a table has measured stays in `results/raw/`, one step after the other; a run that was stopped goes on there.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import OfframpError
from results.page import write_section
from results.runs import WORK, Settings
from results.store import Store

TABLES = ("guarantee", "blenet", "methods", "depth", "cifar", "frozen")
ROOT = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line names; returns the exit status."""
    options = _parser().parse_args(arguments)
    settings = Settings(data_dir=options.data_dir, work=options.work, threads=options.threads)
    try:
        for name in options.tables or TABLES:
            module = importlib.import_module(f"results.{name}")
            store = Store(options.raw / f"{name}.json")
            if options.do in ("all", "train"):
                module.train(store, settings)
            if options.do in ("all", "time"):
                module.time(store, settings)
            if steps := store.steps():
                if hasattr(module, "plot"):
                    module.plot(steps, options.page.parent)
                write_section(options.page, name, f"## {module.TITLE}\n\n{module.section(steps)}")
    except OfframpError as error:
        print(f"results: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m results", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", choices=[*TABLES, []], help=", ".join(TABLES))
    parser.add_argument("--do", choices=("all", "train", "time", "page"), default="all", help="one part of the work")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="data sets, each in a subfolder with its name")
    parser.add_argument("--work", type=Path, metavar="DIR", default=WORK, help="bundles and weights")
    parser.add_argument("--raw", type=Path, metavar="DIR", default=ROOT / "results" / "raw", help="what was measured")
    parser.add_argument("--page", type=Path, metavar="FILE.md", default=ROOT / "docs" / "results.md")
    parser.add_argument("--threads", type=int, default=1, help="of torch while it trains")
    return parser


if __name__ == "__main__":
    sys.exit(main())
