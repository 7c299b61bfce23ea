import importlib
import inspect
import json
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import plots
from benchmarks.__main__ import NAMES
from benchmarks.fog import cells, namespaces, page
from benchmarks.fog import map as fog_map
from benchmarks.fog.layouts import FULL, Way, bundles, field
from benchmarks.fog.line import Line
from benchmarks.fog.links import Links
from benchmarks.fog.load import lists
from benchmarks.fog.numbers import compare, geometric_mean, joined, least_regret, regrets, summary
from benchmarks.results import CannotRun
from common.bundle import Bundle
from offramp.load_run import Outcome, Plan, Sample, arrivals

MNIST = Path(__file__).parents[2] / "bundles" / "mnist-lenet"


def test_a_packet_takes_its_size_over_the_rate_and_then_the_delay() -> None:
    line = Line(8000.0, 0.5)  # a byte per millisecond
    line.put(b"x" * 100, 10.0)
    assert line.next() == pytest.approx(10.6)
    assert line.due(10.59) == []
    assert line.due(10.61) == [b"x" * 100]
    assert line.next() is None


def test_packets_wait_for_those_before_them_but_not_for_their_way() -> None:
    line = Line(8000.0, 0.5)
    for at in (0.0, 0.0, 0.05, 3.0):
        line.put(b"x" * 100, at)
    arrivals_s = []
    while (at := line.next()) is not None:
        arrivals_s.append(at)
        assert len(line.due(at)) == 1
    assert arrivals_s == pytest.approx([0.6, 0.7, 0.8, 3.6])


def test_a_full_queue_drops_and_a_shorter_link_lets_nothing_overtake() -> None:
    line = Line(8000.0, 1.0, limit_bytes=250)
    for number in range(5):
        line.put(bytes([number]) * 100, 0.0)
    assert (line.count.packets, line.count.bytes, line.count.dropped) == (3, 300, 2)
    line.shape(8e9, 0.0)
    line.put(b"late", 0.31)
    assert [packet[:1] for packet in line.due(9.0)] == [b"\0", b"\1", b"\2", b"l"]


def test_links_pass_whole_packets_in_order_both_ways_and_never_too_soon() -> None:
    kind = socket.SOCK_SEQPACKET
    (device, lower), (cloud, upper), (asking, control) = (socket.socketpair(socket.AF_UNIX, kind) for _ in range(3))
    links = Links([(lower.fileno(), upper.fileno())], control.fileno())
    said, written = os.pipe()
    thread = threading.Thread(target=lambda: links.run(written))
    thread.start()
    try:
        asking.send(b'{"shape": [1e6, 0.02]}\n')
        assert json.loads(os.read(said, 1000)) == {}
        begin = time.monotonic()
        for number in range(5):
            device.send(bytes([number]) * 125)  # a millisecond each
        assert [cloud.recv(1000) for _ in range(5)] == [bytes([number]) * 125 for number in range(5)]
        assert time.monotonic() - begin >= 0.0249
        cloud.send(b"back")
        assert device.recv(1000) == b"back"
        asking.send(b'{"count": true}\n')
        count = json.loads(os.read(said, 1000))
        assert count["up"] == [{"packets": 5, "bytes": 625, "dropped": 0}]
        assert count["down"] == [{"packets": 1, "bytes": 4, "dropped": 0}]
    finally:
        asking.close()
        thread.join()
        for each in (device, lower, cloud, upper, control):
            each.close()
        os.close(said)
        os.close(written)


def answered(due: float, ms: float, tier: str = "device", right: bool | None = True) -> Sample:
    return Sample(due_s=due, latency_s=ms / 1e3, entry="device", tier=tier, exit=0, degraded=None, right=right)


def test_what_is_counted_are_the_requests_that_were_due_after_the_warm_up() -> None:
    plan = Plan(url="", rate=50.0, seconds=2.0, seed=3, give_up_s=3.0)
    due = list(arrivals(plan))
    counted = [each for each in due if each >= 1.0]
    outcome = Outcome(sent=len(due))
    outcome.samples = [
        answered(each, 1.0 + number, "edge" if number % 2 else "device") for number, each in enumerate(due)
    ]
    del outcome.samples[due.index(counted[0])]  # no answer came
    outcome.samples.reverse()  # answers come in any order
    found = lists(plan, outcome, warm_s=1.0)
    assert found["ms"] == [3000.0, *(1.0 + due.index(each) for each in counted[1:])]
    assert found["forwarded"][0] is False and found["right"][0] is None
    assert found["forwarded"][1:] == [bool(due.index(each) % 2) for each in counted[1:]]
    assert (found["unanswered"], found["degraded"], found["exits"]) == (1, 0, {"0": len(counted) - 1})


def of(ms: list[float], forwarded: list[bool] | None = None) -> dict[str, object]:
    return {
        "ms": ms, "forwarded": forwarded or [False] * len(ms), "right": [True] * len(ms), "unanswered": 0, "degraded": 0,
        "exits": {"0": len(ms)}, "sent": len(ms), "late_ms": 0.0, "up0": 100 * len(ms), "up1": 0,
    }  # fmt: skip


def test_numbers_of_one_way() -> None:
    hundred = [float(each) for each in range(1, 101)]
    whole = joined([of(hundred[:50]), of(hundred[50:], [True] * 50)])
    found = summary(whole)
    assert (found["mean"], found["p50"], found["p95"], found["p99"]) == (50.5, 50, 95, 99)
    assert (found["forwarded"], found["forwarded_p50"], found["forwarded_p99"]) == (0.5, 75, 100)
    assert (found["requests"], found["bytes_up"], found["exits"]) == (100, [100, 0], {"0": 100})


def test_gains_are_against_the_best_of_the_others_number_by_number() -> None:
    ours, spiky, steady = of([2.0] * 100), of([1.0] * 90 + [90.0] * 10), of([4.0] * 100)
    gains = compare(ours, {"spiky": spiky, "steady": steady})
    assert {name: each["against"] for name, each in gains.items()} == {
        "mean": "steady",
        "p95": "steady",
        "p99": "steady",
    }
    assert all(each["gain"] == each["low"] == each["high"] == 2.0 for each in gains.values())
    same = compare(steady, {"itself": steady})
    assert all(each["gain"] == 1.0 for each in same.values())


def test_the_way_with_the_least_regret_is_good_in_every_number() -> None:
    quick_but_spiky, good = of([1.0] * 90 + [90.0] * 10), of([3.0] * 90 + [6.0] * 10)
    slow = of([5.0] * 100)
    candidates = {"spiky": quick_but_spiky, "good": good, "slow": slow}
    assert least_regret(candidates) == "good"
    assert regrets(candidates) == pytest.approx({"spiky": 90 / 5, "good": 6 / 5, "slow": 5 / 3.3})
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1.0)


def test_every_way_runs_all_stages_once() -> None:
    ways = field(3, inputs=True, point="default")
    everyone = (ways.device, ways.cloud, ways.fixed, *ways.splits, *ways.offramp)
    assert all(sum(way.stages.values()) == 3 for way in everyone)
    assert ways.device.stages == {"device": 3} and ways.cloud.stages == {"cloud": 3}
    assert all(way.point == FULL for way in (ways.device, ways.cloud, *ways.splits))
    assert ways.fixed in ways.offramp and len({(way.name, way.point) for way in everyone}) == len(set(everyone))
    assert {way.layout for way in everyone} <= set(ways.layouts)
    assert not any(way.layout.inputs for way in field(4, inputs=False, point="default").offramp)


def test_the_copy_that_forwards_inputs_is_a_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.fog.layouts.BUILT", tmp_path)
    copy = Bundle(bundles(MNIST)[True])
    assert copy.manifest.input_cuts == {0, 1}
    assert copy.stage_bytes(2) == Bundle(MNIST).stage_bytes(2)


def test_inputs_are_forwarded_for_a_try_where_they_are_small_or_nobody_knows(tmp_path: Path) -> None:
    known = {"rows": 9, "input_zlib": 500.0, "coded": 300.0}
    for cuts, worth in (([known], False), ([known, known | {"coded": 600.0}], True), ([{"rows": 0}], True)):
        (tmp_path / "evaluation.json").write_text(json.dumps({"forwarded_bytes": cuts}))
        assert fog_map._inputs_are_small(tmp_path) is worth


class FakePlace:
    """Answers without a network: so many milliseconds per way; notes who was asked."""

    def __init__(self, ms: dict[str, float]) -> None:
        self.network = self
        self.ms = ms
        self.asked: list[str] = []
        self.again: set[str] = set()

    def shape(self, bits_per_s: float, round_trip_s: float) -> None:
        self.round_trip_ms = round_trip_s * 1e3

    def check(self, to: str) -> dict[str, float]:
        return {"round_trip_ms": self.round_trip_ms, "mbit_per_s": 1.0}

    def ask(self, way: Way, *, rate: float, seconds: float, warm: float, seed: int) -> dict[str, object]:
        self.asked.append(f"{way.name}, {way.point}")
        if seed == 2:
            self.again.add(f"{way.name}, {way.point}")
        return of([self.ms[f"{way.name}, {way.point}"]] * 20, [len(way.stages) > 1] * 20)


def test_a_cell_measures_the_best_of_each_kind_and_tries_nothing_hopeless() -> None:
    ways = field(3, inputs=False, point="default")
    ms = {f"{way.name}, {way.point}": 20.0 for way in (ways.device, ways.cloud, *ways.splits, *ways.offramp)}
    place = FakePlace(ms | {"device 3, default": 8.0, "edge 3, default": 5.0, "edge 3, full": 10.0})
    times, alone = cells.Times(try_s=1.0, again_s=2.0, requests=20, rounds=2), {}

    def one(round_trip_ms: int) -> dict[str, object]:
        place.asked.clear()
        cell = cells.Cell(share=0.25, mbit=10, round_trip_ms=round_trip_ms)
        return cells.measure(place, ways, cell, 50.0, times, alone)  # type: ignore[arg-type]

    near = one(1)
    assert near["ways"]["offramp"] == near["ways"]["static split"] == "edge 3"
    assert {name: each["gain"] for name, each in near["gains"].items()} == {"mean": 2.0, "p95": 2.0, "p99": 2.0}
    assert near["gains"]["mean"]["against"] == "static split"
    assert place.again == {"edge 3, default", "device 3, default"}, "what is near the best is tried for longer"
    far = one(10)  # whoever crosses a link takes longer than the device's 8 ms
    assert far["ways"]["offramp"] == "device 3" and far["gains"]["p99"]["gain"] == 10.0 / 8.0
    assert "edge 3, default" not in place.asked and far["ways"]["static split"] == "edge 3"
    assert not any(asked.startswith("device 3") and asked.endswith("full") for asked in place.asked)  # known already
    ms["device 1, edge 2, default"] = 1.0
    place.ms |= ms | {"device 3, default": 8.0}
    shared = one(10)
    assert shared["forwarded_gains"] == {"p50": 20.0, "p99": 20.0}


def test_a_trial_has_requests_enough_at_any_rate() -> None:
    times = cells.Times(try_s=1.0, again_s=3.0, requests=400, rounds=2)
    assert [times.trial(rate, again=False) for rate in (10, 24, 100)] == [2.4, 1.0, 1.0]
    assert [times.trial(rate, again=True) for rate in (10, 24, 100)] == [7.2, 3.0, 3.0]


def test_a_load_during_which_the_machine_stood_still_is_sent_again() -> None:
    stalls = iter([30.0, 8.0, 9.0, 0.5])
    assert cells.steady(lambda: {"late_ms": next(stalls)}) == {"late_ms": 8.0}
    assert cells.steady(lambda: {"late_ms": next(stalls)}) == {"late_ms": 0.5}


def test_the_page_names_wins_and_losses_and_the_map_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    found = {}
    for number, cell in enumerate(cells.cells(False)):
        slow, quick = (of((chance.exponential(1.0, 50) + shift).tolist()) for shift in (9.0, 1.0))
        ours, theirs = (quick, slow) if number else (slow, quick)
        others = dict.fromkeys(page._OTHERS, theirs)
        numbers = {name: summary(each) for name, each in {**others, "offramp": ours}.items()}
        found[cell.name] = {
            "rate": 50.0, "ways": {"offramp": "device 3", "static split": "edge 3"}, "numbers": numbers,
            "gains": compare(ours, others), "fixed": summary(theirs), "forwarded_gains": {"p50": 1.0, "p99": 0.9},
        }  # fmt: skip
    text = page.tables({"benchmark": "fog", "cells": found})
    assert "(performance-fog.svg)" in text
    assert f"{len(found) - 1} of {len(found)}" in text and f"1 of {len(found)}" in text
    monkeypatch.setattr(plots, "PAGE", tmp_path / "performance.md")
    plots.plot("fog", {"cells": found})
    assert "1 Mbit/s" in (tmp_path / "performance-fog.svg").read_text()


def test_a_machine_without_root_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    reason = namespaces.missing()
    assert reason is not None and reason.startswith("The links need root") and reason.count(".") == 1


@pytest.mark.parametrize("name", fog_map.BUNDLES)
def test_the_benchmark_is_found_by_name(name: str) -> None:
    benchmark = importlib.import_module(f"benchmarks.{name}")
    assert name in NAMES and all(inspect.isfunction(getattr(benchmark, each)) for each in ("run", "tables"))


def test_a_bundle_that_is_not_there_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fog_map, "missing", lambda: None)
    monkeypatch.setitem(fog_map.BUNDLES, "mobilenet", fog_map.ROOT / "runs" / "no-bundle")
    with pytest.raises(CannotRun, match=r"^runs/no-bundle is not there\. docs/performance\.md says how it is made\.$"):
        fog_map.run("mobilenet", quick=True)
