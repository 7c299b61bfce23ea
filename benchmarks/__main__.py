"""`python -m benchmarks [names...] [--quick]`: run benchmarks, save results, and write docs/performance.md."""

from __future__ import annotations

import argparse
import importlib

from benchmarks import report
from benchmarks.results import CannotRun

NAMES = ("local", "hop", "batching", "codec", "tier", "scale", "soak", "fog", "mobilenet")


def main() -> None:
    """Run what was asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(NAMES)}; all when left out")
    parser.add_argument("--quick", action="store_true", help="few short rounds, to see that all works; saves nothing")
    parser.add_argument("--report", action="store_true", help="only write the page again from the saved results")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}. It must be one of {', '.join(NAMES)}.")
    names = tuple(chosen.names) or NAMES
    not_run = []
    for name in () if chosen.report else names:
        print(f"== {name}", flush=True)
        benchmark = importlib.import_module(f"benchmarks.{name}")
        try:
            print(benchmark.tables(benchmark.run(quick=chosen.quick)))
        except CannotRun as reason:
            not_run.append(f"{name} was not run. {reason}")
    if not chosen.quick:
        report.write(names)
    if not_run:
        raise SystemExit("\n".join(not_run))


if __name__ == "__main__":
    main()
