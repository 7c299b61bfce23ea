"""The grid: links, the device's share of its core, the load; and how one cell of it is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.fog.layouts import Field, Way
from benchmarks.fog.numbers import Lists, compare, joined, least_regret, regrets, summary
from benchmarks.fog.place import Place
from benchmarks.machine import load_average

MBITS = (1, 10, 100, 1000)
ROUND_TRIPS_MS = (1, 10, 100)
SHARES = (0.25, 0.1)
_NEAR = 1.6  # times the least regret: such ways are tried again
_STALL_MS, _TRIES = 3.0, 3
LOADS = {"moderate": 0.5, "high": 0.85}  # of what the device alone can answer


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

    try_s: float  # every way, at least
    again_s: float  # those that are near the best, again, at least
    requests: int  # of each contender, in all rounds together, at least
    rounds: int
    least_s: float = 3.0  # of a round
    warm_s: float = 0.3
    try_requests: int = 24  # of a try, and of another, at least: fewer say little of how requests queue
    again_requests: int = 72

    def seconds(self, rate: float) -> float:
        """Of one round."""
        return max(self.requests / self.rounds / rate, self.least_s)

    def trial(self, rate: float, *, again: bool) -> float:
        """Seconds of a trial of one way."""
        least_s, requests = (self.again_s, self.again_requests) if again else (self.try_s, self.try_requests)
        return max(requests / rate, least_s)


def measure(
    place: Place, field: Field, cell: Cell, capacity: float, times: Times, alone: dict[str, Lists]
) -> dict[str, Any]:
    """One cell: try every way shortly, the best ones again, then measure the best of each kind, by turns.

    All get the same requests at the same times, and trials others than those that count.

    Args:
        place: where everything runs.
        field: what is tried.
        cell: links and load.
        capacity: requests per second that the device alone can answer.
        times: how long.
        alone: what was measured of ways that no link touches, so that it holds for every cell of this share and load;
            filled here.
    """
    place.network.shape(cell.mbit * 1e6, cell.round_trip_ms / 1e3)
    rate = capacity * LOADS[cell.load]

    def ask(way: Way, seed: int, seconds: float) -> Lists:
        key = f"{cell.load}, {way.name}, {way.point}, {seed}"
        if key in alone:
            return alone[key]
        lists = steady(lambda: place.ask(way, rate=rate, seconds=seconds, warm=times.warm_s, seed=seed))
        if set(way.stages) == {"device"}:
            alone[key] = lists
        return lists

    begin = time.monotonic()
    trials = _trials(field, cell, lambda way: ask(way, 1, times.trial(rate, again=False)))
    again = times.trial(rate, again=True)
    static = _best(field.splits, trials, lambda way: ask(way, 2, again)) or field.splits[-1]
    ours = _best(field.offramp, trials, lambda way: ask(way, 2, again))
    assert ours is not None  # all stages on the device are always tried
    others = {"device alone": field.device, "compressed input to the cloud": field.cloud, "static split": static}
    contenders = {**others, "offramp": ours}
    rounds: dict[str, list[Lists]] = {name: [] for name in contenders}
    for number in range(times.rounds):
        for name in sorted(contenders, reverse=bool(number % 2)):
            rounds[name].append(ask(contenders[name], 100 + number, times.seconds(rate)))
    whole = {name: joined(each) for name, each in rounds.items()}
    rivals = {name: whole[name] for name in others}
    return {
        "links": {to: place.network.check(to) for to in ("edge", "cloud")},
        "rate": rate,
        "ways": {name: way.name for name, way in contenders.items()},
        "stages": ours.stages | ({"forward": "input"} if ours.layout.inputs else {}),
        "tried": {f"{way.name}, {way.point}": summary(lists) for way, lists in trials.items()},
        "numbers": {name: summary(lists) for name, lists in whole.items()},
        "gains": compare(whole["offramp"], rivals),
        "fixed": summary(trials[field.fixed]),
        "forwarded_gains": _forwarded(whole["offramp"], rivals),
        "load_average": load_average(),
        "seconds": time.monotonic() - begin,
    }


def steady(ask: Callable[[], Lists]) -> Lists:
    """What a load found while the machine did not stand still; the best of `_TRIES` where it always did.

    The load has real-time priority: when it is late, the whole core was, as happens to a virtual machine. What the
    tiers took does not decide.
    """
    best = ask()
    for _ in range(_TRIES - 1):
        if best["late_ms"] <= _STALL_MS:
            break
        best = min(best, ask(), key=lambda lists: float(lists["late_ms"]))
    return best


def _trials(field: Field, cell: Cell, ask: Callable[[Way], Lists]) -> dict[Way, Lists]:
    """Every way for a short while, but where every request crosses a link for longer than the device needs at worst.

    "At worst" is the p99 of all stages with exits on the device, which then beats such a way in every number.
    """
    alone = field.offramp[0]
    trials = {alone: ask(alone)}
    slowest = summary(trials[alone])["p99"]
    for way in (*field.offramp, *field.splits):
        crossed = cell.round_trip_ms * (max(way.hops, 1) if way.hops or way in field.splits else 0)
        if crossed <= slowest and way not in trials:
            trials[way] = ask(way)
    return trials


def _best(ways: Sequence[Way], trials: dict[Way, Lists], ask: Callable[[Way], Lists]) -> Way | None:
    """The way with the least regret, after a longer trial of those that the first left near it; None without trials."""
    tried = {way.name: way for way in ways if way in trials}
    found = {name: trials[way] for name, way in tried.items()}
    if not found:
        return None
    regret = regrets(found)
    near = [name for name in found if regret[name] <= _NEAR * min(regret.values())]
    if len(near) > 1:
        found = {name: joined([found[name], ask(tried[name])]) for name in near}
    return tried[least_regret(found)]


def _forwarded(ours: Lists, others: dict[str, Lists]) -> dict[str, float]:
    """p50 and p99 of forwarded rows alone: those of the best other way that uses the network, over ours."""
    mine = summary(ours)
    if "forwarded_p50" not in mine:
        return {}
    rest = [summary(lists) for name, lists in others.items() if name != "device alone"]
    return {key: min(each[key] for each in rest) / mine[f"forwarded_{key}"] for key in ("p50", "p99")}
