"""Figures that take longer than a test: `python -m calibration.results guarantee BUNDLE`.

Each table becomes a section of a Markdown file, between two marks, so that one can be measured again alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from calibration.guarantee_figures import DELTA, HEADER, Figure, figures, line, stored
from common.errors import OfframpError

_ABOUT = """\
Shares in percent. One redraw is a certify split of n rows drawn with replacement from the population;
{redraws:,} redraws per row of the table, seed {seed}, delta {delta:g}. *Broken*: redraws whose chosen rung has a
true mean loss above epsilon. *At least*: one-sided 99 % Clopper-Pearson lower limit of that share; the promise
holds as long as it does not exceed {percent:g} %. *Unguarded*: the cheapest rung whose mean loss on the drawn rows is
at most epsilon; *kept*: savings in FLOPs beside its savings. *Grid*: the same choice over a grid of thresholds.
*Hardest*: epsilon just below the true mean loss of a rung. *Rejected*: the check finds that a procedure breaks
the promise. See [guarantees.md](guarantees.md).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line names; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _guarantee(options)
    except OfframpError as error:
        print(f"calibration.results: {error}", file=sys.stderr)
        return 1


def write_section(path: Path, name: str, text: str) -> None:
    """Put text between the marks of a section; a file or section that is not there is begun."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before = path.read_text() if path.exists() else "# Results\n"
    section = f"{begin}\n{text.strip()}\n{end}"
    head, mark, rest = before.partition(begin)
    _, closed, tail = rest.partition(end)
    if mark and closed:
        path.write_text(f"{head}{section}{tail}")
    else:
        path.write_text(f"{before.rstrip()}\n\n{section}\n")


def _guarantee(options: argparse.Namespace) -> int:
    found: list[Figure] = []
    print(HEADER)
    for noise in options.noise:
        population = stored(options.bundle, options.data_dir, noise=noise, seed=options.seed)
        found += figures(population, redraws=options.redraws, seed=options.seed, report=print)
    if options.write is not None:
        about = _ABOUT.format(redraws=options.redraws, seed=options.seed, delta=DELTA, percent=100 * DELTA)
        table = "\n".join([HEADER, *(line(figure) for figure in found)])
        write_section(options.write, "guarantee", f"## Guarantees\n\n{about}\n{table}")
    return 0 if all(figure.guarded.holds for figure in found) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m calibration.results", description=__doc__)
    tables = parser.add_subparsers(required=True, metavar="TABLE")
    guarantee = tables.add_parser("guarantee", help="how often a certified promise is broken, over many redraws")
    guarantee.add_argument("bundle", type=Path, metavar="BUNDLE")
    guarantee.add_argument("--data-dir", type=Path, metavar="DIR", help="the data set's own files")
    guarantee.add_argument("--redraws", type=int, default=10_000)
    guarantee.add_argument("--seed", type=int, default=0)
    guarantee.add_argument(
        "--noise", type=float, nargs="+", default=[0.0, 30.0], help="one population per standard deviation, in 0..255"
    )
    guarantee.add_argument("--write", type=Path, metavar="FILE.md", help="where the table becomes a section")
    return parser


if __name__ == "__main__":
    sys.exit(main())
