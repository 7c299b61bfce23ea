"""Writes the generated parts of docs/performance.md: what lies between `<!-- NAME -->` and `<!-- /NAME -->`."""

from __future__ import annotations

import importlib
import json
import re

from benchmarks.paths import PAGE, RESULTS
from benchmarks.plots import plot
from benchmarks.results import Document
from offramp.load_report import percentile


def write(names: tuple[str, ...]) -> None:
    """Put the saved results of these benchmarks into the page, as tables and plots."""
    page = PAGE.read_text()
    for name in names:
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        document = json.loads(path.read_text())
        text = f"{importlib.import_module(f'benchmarks.{name}').tables(document)}\n\n{_circumstances(document)}"
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        page, found = re.subn(
            f"{begin}.*?{end}", lambda _, block=f"{begin}\n{text}\n{end}": block, page, flags=re.DOTALL
        )
        if not found:
            raise ValueError(f"{PAGE.name} has no place {begin} ... {end} for results.")
        plot(name, document)
    PAGE.write_text(page)


def _circumstances(document: Document) -> str:
    """One line on what was measured, where, and how busy the machine was."""
    machine, loads = document["machine"], sorted(document["load_average"])
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"<sub>offramp at {machine['offramp']}; {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, Linux {machine['kernel']}, Python {machine['python']}; {packages}. "
        f"{document['settings']['rounds']} rounds, {document['seconds']:.0f} s in all, "
        f"load average {percentile(loads, 0.5)} (median).</sub>"
    )
