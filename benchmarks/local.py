"""Local answers over REST: offramp's device against the bare floor and against every peer.

Same stage, same images, same load generator. LeNet's first stage with its exit; only images that this exit
accepts at operating point `default`, so that nobody forwards anything.

One client leaves one side waiting for the other at any moment. Whether both share a core is the scheduler's
choice and changes every result by a wake-up of another core, the same for all servers. So the latency at one
client is measured twice: with client and server on one core (named "1"; where the scheduler mostly puts them,
and the hardest case for a ratio) and on a core each ("1 apart"; servers of several processes have all cores).
With 32 clients everybody uses all cores.
"""

from __future__ import annotations

import os

from benchmarks.bodies import accepted_inputs
from benchmarks.children import Child, python
from benchmarks.contenders import CONTENDERS, Running
from benchmarks.results import Document, Recorder
from benchmarks.tables import number, table, times

_WARM_S = 0.5
OURS = ("offramp", "offramp 2 workers")


def run(*, quick: bool) -> Document:
    """Measure and save."""
    rounds, seconds = (3, 0.3) if quick else (7, 0.35)
    inputs = accepted_inputs()
    recorder = Recorder(
        "local",
        rounds=rounds,
        seconds_per_cell=seconds,
        images=f"{len(inputs.labels)} of the {inputs.of} in examples/mnist, all accepted by exit 0 at `default`",
        load="closed loop, keep-alive, a process of its own; every request waits for its reply",
    )
    load = python("benchmarks.http_load", piped=True)
    running: list[Running] = []
    about: dict[str, dict[str, str]] = {}
    try:
        for contender in CONTENDERS:
            try:
                if not contender.installed:
                    raise RuntimeError("its environment is not there: `make bench-peers` makes it")
                running.append(Running(contender, inputs))
                state = "measured"
            except (RuntimeError, OSError) as error:
                state = f"not measured: {error}"
                print(f"  {contender.name}: {state}", flush=True)
            about[contender.name] = {"version": contender.version(), "about": contender.about, "state": state}
        for number in range(rounds):
            for each in running[number % len(running) :] + running[: number % len(running)]:
                _measure(recorder, load, each, seconds, warm=number == 0)
            recorder.round_done(number, rounds)
    finally:
        load.stop()
        for each in running:
            each.child.stop()
    return recorder.save(keep=not quick, contenders=about, ratios=_ratios(recorder))


def _measure(recorder: Recorder, load: Child, each: Running, seconds: float, *, warm: bool) -> None:
    """All cells of one server in this round; the others sleep meanwhile."""
    each.child.resume()
    try:
        for place, (clients, load_on, server_on) in _places(several=each.contender.several).items():
            load.pin(load_on)
            each.child.pin(server_on)
            for kind, form in (("json", each.contender.json), ("npy", each.contender.npy)):
                question = {"port": each.port, "form": form, "clients": clients}
                load.ask(**question, seconds=_WARM_S if warm else 0.1)
                used = each.child.cpu_s()
                numbers = load.ask(**question, seconds=seconds, warm=0)
                numbers["server_cpu"] = (each.child.cpu_s() - used) / seconds
                recorder.add(f"{each.contender.name}, {kind}, {place}", **numbers)
        recorder.add(f"{each.contender.name}, memory", mb=each.child.memory_mb())
    finally:
        each.child.pause()


def _places(*, several: bool) -> dict[str, tuple[int, set[int], set[int]]]:
    """Cell -> number of clients, cores of the load, cores of the server."""
    cores = os.sched_getaffinity(0)
    first, last = {min(cores)}, {max(cores)}
    return {"1": (1, first, first), "1 apart": (1, last, cores if several else first), "32": (32, cores, cores)}


def _ratios(recorder: Recorder) -> dict[str, dict[str, float]]:
    """offramp against everybody else: latency at one client, rate at 32, there with two workers too."""
    ratios = {}
    for cell in recorder.cells:
        name, _, rest = cell.partition(", ")
        if rest == "memory":
            continue
        one = rest.partition(", ")[2].startswith("1")
        for ours in ("offramp",) if one else OURS:
            if name != ours and recorder.has(f"{ours}, {rest}"):
                for each in ("p50_us", "p95_us") if one else ("rate",):
                    ratios[f"{each}, {rest}, {ours} / {name}"] = recorder.ratio(each, f"{ours}, {rest}", cell)
    return ratios


def tables(document: Document) -> str:
    """The page's tables."""
    parts = []
    for kind, what in (("json", "JSON of 784 numbers"), ("npy", "an array file of 784 bytes")):
        rows = [_row(document, name, kind) for name in document["contenders"]]
        head = ["server", "p50 us, 1 client", "p95 us", "offramp's p50 / its", "on two cores"]
        head += ["requests/s, 32 clients", "offramp's / its", "with 2 workers", "cores used"]
        parts += [f"Body: {what}.", table(head, rows)]
    return "\n\n".join(parts)


def _row(document: Document, name: str, kind: str) -> list[str]:
    contender = document["contenders"][name]
    shown = f"{name} {contender['version']}".strip()
    if contender["state"] != "measured":
        return [shown, contender["state"], *[""] * 7]
    medians, ratios = document["medians"], document["ratios"]
    one, many = medians[f"{name}, {kind}, 1"], medians[f"{name}, {kind}, 32"]
    found = [ratios.get(f"p50_us, {kind}, {place}, offramp / {name}") for place in ("1", "1 apart")]
    found += [ratios.get(f"rate, {kind}, 32, {ours} / {name}") for ours in OURS]
    latency, apart, rate, workers = [times(each) if each else "" for each in found]
    return [
        shown,
        number(one["p50_us"]["median"]),
        number(one["p95_us"]["median"]),
        latency,
        apart,
        number(many["rate"]["median"]),
        rate,
        workers,
        number(many["server_cpu"]["median"]),
    ]
