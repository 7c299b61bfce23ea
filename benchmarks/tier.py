"""How soon a tier is ready, and what memory it takes; the same for the floor and the peers.

A start counts from the process's creation: until a tier's ops door says that it is ready, for servers without one
until the first right answer. Memory is counted once ready, and again after some load on the one that takes it. RSS is
that of the first process; PSS adds up all processes, shared pages divided among those that share them.
"""

from __future__ import annotations

import time

from benchmarks.bodies import Inputs, accepted_inputs, requests
from benchmarks.children import START_S, Child, free_port, python
from benchmarks.contenders import CONTENDERS, Contender, label_of
from benchmarks.http_load import ask_once
from benchmarks.results import Document, Recorder
from benchmarks.tables import number, spread, table
from benchmarks.tiers import Tiers

TIERS = ("device", "edge", "cloud")
_OTHERS = ("floor", "mosec", "LitServe", "KServe")


def run(*, quick: bool) -> Document:
    """Measure and save."""
    rounds = 2 if quick else 7
    recorder = Recorder("tier", rounds=rounds, bundle="mnist-lenet, one stage per tier")
    inputs = accepted_inputs()
    load = python("benchmarks.http_load", piped=True)
    others = [each for each in CONTENDERS if each.name in _OTHERS and each.installed]
    try:
        for each in range(rounds):
            _tiers(recorder, load)
            for contender in others:
                _other(recorder, contender, inputs, load)
            recorder.round_done(each, rounds)
    finally:
        load.stop()
    return recorder.save(keep=not quick, versions={each.name: each.version() for each in others})


def _tiers(recorder: Recorder, load: Child) -> None:
    tiers = Tiers("tier", {"device": 1, "edge": 1, "cloud": "rest"})
    try:
        started = {name: tiers.start(name) for name in reversed(TIERS)}
        tiers.wait_until_up("device")
        tiers.wait_until_up("edge")
        fresh = {name: tiers.children[name].resident_mb() for name in TIERS}
        load.ask(port=tiers.rest, form="json", clients=8, seconds=1.0)
        load.ask(port=tiers.rest, form="full", clients=8, seconds=1.0)
        for name in TIERS:
            child = tiers.children[name]
            recorder.add(
                name, ready_s=started[name], rss_mb=fresh[name], loaded_mb=child.resident_mb(), pss_mb=child.memory_mb()
            )
    finally:
        tiers.stop()


def _other(recorder: Recorder, contender: Contender, inputs: Inputs, load: Child) -> None:
    port = free_port()
    child = contender.start(port)
    try:
        request = requests(contender.json, inputs)[0]
        until = child.started + START_S
        while True:
            try:
                if label_of(ask_once(port, request)) == inputs.labels[0]:
                    break
            except (OSError, RuntimeError, ValueError):
                if not child.alive or time.monotonic() > until:
                    raise
            time.sleep(0.01)
        ready = time.monotonic() - child.started
        fresh = child.resident_mb()
        load.ask(port=port, form=contender.json, clients=8, seconds=1.0)
        numbers = {"loaded_mb": child.resident_mb(), "pss_mb": child.memory_mb()}
        recorder.add(contender.name, ready_s=ready, rss_mb=fresh, **numbers)
    finally:
        child.stop()


def tables(document: Document) -> str:
    """The page's table."""
    rows = []
    for name, numbers in document["medians"].items():
        row = [f"{name} {document['versions'].get(name, '')}".strip(), spread(numbers["ready_s"])]
        rows.append([*row, *(number(numbers[each]["median"]) for each in ("rss_mb", "loaded_mb", "pss_mb"))])
    head = ["process", "ready after s", "RSS MB, ready", "RSS MB, after load", "PSS MB, all its processes"]
    return table(head, rows)
