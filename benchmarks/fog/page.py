"""The page's part on three tiers: the map as tables, and what every contender took in each of its cells."""

from __future__ import annotations

from typing import Any

from benchmarks.fog.cells import Cell, cells
from benchmarks.fog.numbers import OVERALL, geometric_mean
from benchmarks.results import Document
from benchmarks.tables import number, table

_OTHERS = ("device alone", "compressed input to the cloud", "static split")
WIN, WORSE = 1.3, 1 / 1.05


def tables(document: Document) -> str:
    """Markdown: per share and load the map, its summary, and the numbers behind it."""
    found = {cell: document["cells"][cell.name] for cell in cells(False) if cell.name in document["cells"]}
    found |= {cell: document["cells"][cell.name] for cell in cells(True) if cell.name in document["cells"]}
    parts = [f"![Gains per link](performance-{document['benchmark']}.svg)", _summary(found)]
    if left := document.get("left"):
        parts.append(f"{left} of {len(cells(False))} cells are not measured yet.")
    for share, load in dict.fromkeys((cell.share, cell.load) for cell in found):
        group = {cell: one for cell, one in found.items() if (cell.share, cell.load) == (share, load)}
        rate = next(iter(group.values()))["rate"]
        parts.append(f"Device held to {share:g} of a core, {load} load ({rate:.0f} requests/s):")
        parts += [_gains(group), _numbers(group)]
    return "\n\n".join(parts)


def _summary(found: dict[Cell, dict[str, Any]]) -> str:
    counts = []
    for name in OVERALL:
        gains = [one["gains"][name]["gain"] for one in found.values()]
        wins, worse = sum(gain >= WIN for gain in gains), sum(gain < WORSE for gain in gains)
        surely = sum(one["gains"][name]["high"] < WORSE for one in found.values())
        row = [name, f"{wins} of {len(gains)}", f"{worse} of {len(gains)}", f"{surely}"]
        counts.append([*row, f"{min(gains):.2f}x", f"{geometric_mean(gains):.2f}x", f"{max(gains):.2f}x"])
    head = ["over all requests", "1.3x quicker or more", "more than 5 % slower", "with the whole interval"]
    return table([*head, "least", "geometric mean", "most"], counts)


def _gains(group: dict[Cell, dict[str, Any]]) -> str:
    rows = []
    for cell, one in group.items():
        row = [f"{cell.mbit} Mbit/s", f"{cell.round_trip_ms} ms", one["ways"]["offramp"]]
        for name in OVERALL:
            gain = one["gains"][name]
            row.append(f"{_marked(gain['gain'])} ({gain['low']:.2f}-{gain['high']:.2f})")
        forwarded = one["forwarded_gains"]
        row.append(f"{forwarded['p50']:.2f}x, {forwarded['p99']:.2f}x" if forwarded else "none")
        rows.append(row)
    return table(["each link", "round trip", "offramp", *OVERALL, "forwarded rows: p50, p99"], rows)


def _marked(gain: float) -> str:
    text = f"{gain:.2f}x"
    return f"**{text}**" if gain >= WIN else f"*{text}*" if gain < WORSE else text


def _numbers(group: dict[Cell, dict[str, Any]]) -> str:
    rows = []
    for cell, one in group.items():
        row = [f"{cell.mbit} Mbit/s, {cell.round_trip_ms} ms", one["ways"]["static split"]]
        for name in (*_OTHERS, "offramp"):
            numbers = one["numbers"][name]
            row.append(" / ".join(number(numbers[key]) for key in OVERALL) + _unanswered(numbers))
        ours, theirs = one["numbers"]["offramp"], one["numbers"]["compressed input to the cloud"]
        fixed = one["fixed"]
        row.append(" / ".join(number(fixed[key]) for key in OVERALL) if fixed else "")
        row += [number(each["bytes_up"][0]) if each else "" for each in (theirs, ours, fixed)]
        row.append(" / ".join(f"{one['numbers'][name]['accuracy']:.1%}" for name in ("device alone", "offramp")))
        row.append(str(ours["requests"]))
        rows.append(row)
    head = ["each link", "the static split", *(f"{name}, ms" for name in (*_OTHERS, "offramp"))]
    head += [
        "a stage per tier, ms",
        "bytes up per input: PNG",
        "offramp",
        "a stage per tier",
        "right: without, with exits",
        "requests",
    ]
    return "Milliseconds are mean / p95 / p99:\n\n" + table(head, rows)


def _unanswered(numbers: dict[str, Any]) -> str:
    return f" ({numbers['unanswered']} unanswered)" if numbers["unanswered"] else ""
