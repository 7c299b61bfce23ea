"""The grid: links, the device's share of its core, the load; and how one cell of it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.fog.layouts import Field, Way
from benchmarks.fog.numbers import Lists, compare, joined, least_regret, summary
from benchmarks.fog.place import Place

MBITS = (1, 10, 100, 1000)
ROUND_TRIPS_MS = (1, 10, 100)
SHARES = (0.1, 0.25)
LOADS = {"moderate": 0.5, "high": 0.85}  # of what the device alone can answer
_HOPELESS = 1.5  # a way that cannot be this close to the device alone is not tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of the map."""

    share: float
    mbit: int
    round_trip_ms: int
    load: str = "moderate"

    @property
    def name(self) -> str:
        """Also that of its file."""
        return f"{self.share:g} core, {self.mbit} Mbit per s, {self.round_trip_ms} ms, {self.load} load"


def cells(quick: bool) -> list[Cell]:
    """All cells, those of one share together."""
    if quick:
        return [Cell(share=0.25, mbit=10, round_trip_ms=10)]
    grid = []
    for share in SHARES:
        grid += [Cell(share=share, mbit=m, round_trip_ms=ms) for m in MBITS for ms in ROUND_TRIPS_MS]
        grid += [Cell(share=share, mbit=10, round_trip_ms=ms, load="high") for ms in (1, 10)]
    return grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long things are measured."""

    try_s: float
    requests: int  # of each contender, in all rounds together, at least
    rounds: int
    least_s: float = 2.0  # of a round
    warm_s: float = 0.5

    def seconds(self, rate: float) -> float:
        """Of one round."""
        return max(self.requests / self.rounds / rate, self.least_s)


def measure(place: Place, field: Field, cell: Cell, capacity: float, times: Times) -> dict[str, Any]:
    """One cell: try every way shortly, then measure the best of each kind with the same requests, by turns."""
    place.network.shape(cell.mbit * 1e6, cell.round_trip_ms / 1e3)
    rate = capacity * LOADS[cell.load]
    trials = _trials(place, field, cell, rate, times)
    splits = {way.name: trials[way] for way in field.splits if way in trials}
    static = _named(field.splits, least_regret(splits)) if splits else field.splits[0]
    ours = _named(field.offramp, least_regret({way.name: trials[way] for way in field.offramp if way in trials}))
    contenders = {"device alone": field.device, "compressed input to the cloud": field.cloud, "static split": static}
    contenders |= {"offramp": ours}
    rounds: dict[str, list[Lists]] = {name: [] for name in contenders}
    for number in range(times.rounds):
        for name in sorted(contenders, reverse=bool(number % 2)):
            asked = {"rate": rate, "seconds": times.seconds(rate), "warm": times.warm_s, "seed": 100 + number}
            rounds[name].append(place.ask(contenders[name], **asked))
    whole = {name: joined(each) for name, each in rounds.items()}
    others = {name: whole[name] for name in ("device alone", "compressed input to the cloud", "static split")}
    return {
        "links": {to: place.network.check(to) for to in ("edge", "cloud")},
        "rate": rate,
        "ways": {name: way.name for name, way in contenders.items()},
        "stages": ours.stages | ({"forward": "input"} if ours.layout.inputs else {}),
        "tried": {f"{way.name}, {way.point}": summary(lists) for way, lists in trials.items()},
        "numbers": {name: summary(lists) for name, lists in whole.items()},
        "gains": compare(whole["offramp"], others),
        "fixed": summary(trials[field.fixed]) if field.fixed in trials else None,
        "forwarded_gains": _forwarded(whole["offramp"], others),
    }


def _trials(place: Place, field: Field, cell: Cell, rate: float, times: Times) -> dict[Way, Lists]:
    """Every way for a short while, but those whose round trips alone exceed what the device needs for everything."""
    asked = {"rate": rate, "seconds": times.try_s, "warm": times.warm_s, "seed": 1}
    trials = {field.device: place.ask(field.device, **asked)}
    slowest = summary(trials[field.device])["p99"] * _HOPELESS
    for way in (*field.offramp, *field.splits):
        always = way.hops or (way in field.splits and len(way.stages) > 1)
        crossed = (max(way.hops, 1) if always else 0) * cell.round_trip_ms
        if crossed < slowest and way not in trials:
            trials[way] = place.ask(way, **asked)
    return trials


def _named(ways: Sequence[Way], name: str) -> Way:
    return next(way for way in ways if way.name == name)


def _forwarded(ours: Lists, others: dict[str, Lists]) -> dict[str, float]:
    """p50 and p99 of forwarded rows alone: those of the best other way that uses the network, over ours."""
    mine = summary(ours)
    if "forwarded_p50" not in mine:
        return {}
    rest = [summary(lists) for name, lists in others.items() if name != "device alone"]
    return {key: min(each[key] for each in rest) / mine[f"forwarded_{key}"] for key in ("p50", "p99")}
