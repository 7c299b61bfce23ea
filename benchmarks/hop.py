"""One hop between tiers against a bare grpc.aio stream with the same payload and a reply of 40 bytes.

The device tier and the edge are processes of their own, and so are both ends of the bare stream; every process
runs uvloop. Stage 1 on the edge only picks ten numbers. How long it runs there, as the answer says, is taken off the
hop's time; all the rest is the hop: framing, gRPC, checks, batching, deciding, and the answer's way back. Nothing is
coded, so that the whole activation travels. A second floor is the bare stream whose server runs the same stage; it is
compared with the hop's whole time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.children import Child, free_port, python, wait_for_port
from benchmarks.networks import hop_bundle
from benchmarks.paths import BUILT
from benchmarks.places import PLACES
from benchmarks.results import Document, Recorder
from benchmarks.tables import number, table, times
from benchmarks.tiers import Tiers

SIZES = (1, 16, 64, 256, 1024, 4096)  # kilobytes
DEEP = 16  # the size whose throughput is measured too
_IN_FLIGHT = (8, 64)


def run(*, quick: bool) -> Document:
    """Measure and save."""
    rounds, count = (3, 100) if quick else (8, 200)
    recorder = Recorder("hop", rounds=rounds, requests_per_cell=count, reply_bytes_of_the_bare_stream=40)
    with _bare("bare") as bare:
        for kilobytes in SIZES:
            print(f"  hop: {kilobytes} KB", flush=True)
            _size(recorder, bare, kilobytes, rounds, count)
    return recorder.save(keep=not quick, ratios=_ratios(recorder))


@contextmanager
def _bare(name: str, *model: str) -> Iterator[tuple[Child, Child]]:
    """Client and server of a bare stream; with an ONNX file the server runs it."""
    port = free_port()
    server = python("benchmarks.floors.grpc_stream", str(port), *model, log=BUILT / f"grpc-{name}.log")
    try:
        wait_for_port(server, port)
        client = python("benchmarks.hop_client", "bare", str(port), piped=True)
        yield client, server
        client.stop()
    finally:
        server.stop()


def _size(recorder: Recorder, bare: tuple[Child, Child], kilobytes: int, rounds: int, count: int) -> None:
    bundle = hop_bundle(kilobytes)
    tiers = Tiers(f"hop-{kilobytes}k", {"device": 1, "edge": "rest"}, bundle=bundle)
    try:
        tiers.start("edge")
        device = python("benchmarks.hop_client", "offramp", str(tiers.config), piped=True, log=BUILT / "device.log")
        tiers.children["device"] = device  # stopped with the others
        with _bare("bare-run", str(bundle / "stage1.onnx")) as bare_run:
            ends = {"bare": bare, "bare and run": bare_run, "offramp": (device, tiers.children["edge"])}
            for place, cores in PLACES.items():
                for pair in ends.values():
                    for child, on in zip(pair, cores(), strict=True):
                        child.pin(on)
                for in_flight in (1, *_IN_FLIGHT) if kilobytes == DEEP else (1,):
                    many = count * 5 if in_flight > 1 else count if kilobytes < 1024 else count // 3
                    _cell(recorder, ends, rounds, place, kilobytes=kilobytes, in_flight=in_flight, count=many)
        recorder.round_done(rounds - 1, rounds)
    finally:
        tiers.stop()


def _cell(recorder: Recorder, ends: dict[str, tuple[Child, Child]], rounds: int, place: str, **question: int) -> None:
    for client, _ in ends.values():  # warm
        client.ask(**{**question, "count": 50})
    for number_ in range(rounds):
        for name, (client, _) in ends.items() if number_ % 2 else reversed(ends.items()):
            numbers = client.ask(**question)
            numbers["added_us"] = numbers["p50_us"] - numbers["compute_us"]
            where = f"{question['kilobytes']} KB, {question['in_flight']} in flight, {place}"
            recorder.add(f"{name}, {where}", **numbers)


def _ratios(recorder: Recorder) -> dict[str, dict[str, float]]:
    ratios = {}
    for cell in recorder.cells:
        name, _, rest = cell.partition(", ")
        if name == "offramp" and ", 1 in flight" in rest:
            ratios[f"added_us, {rest}"] = recorder.ratio("added_us", cell, f"bare, {rest}")
            ratios[f"p50_us, {rest}"] = recorder.ratio("p50_us", cell, f"bare and run, {rest}")
        elif name == "offramp":
            ratios[f"rate, {rest}"] = recorder.ratio("rate", cell, f"bare, {rest}")
            ratios[f"rate and run, {rest}"] = recorder.ratio("rate", cell, f"bare and run, {rest}")
    return ratios


def tables(document: Document) -> str:
    """The page's tables."""
    parts = []
    for place in PLACES:
        head = ["activation", "bare stream us", "with the run", "offramp us", "of it the run"]
        head += ["added, to the bare stream", "whole, to the one that runs"]
        parts += [f"One request in flight, {place}:", table(head, [_row(document, size, place) for size in SIZES])]
    head = ["16 KB in flight", "placed", "bare stream /s", "with the run", "offramp /s", "to the bare stream"]
    rows = [_deep_row(document, in_flight, place) for in_flight in _IN_FLIGHT for place in PLACES]
    return "\n\n".join([*parts, "Requests per second:", table([*head, "to the one that runs"], rows)])


def _row(document: Document, kilobytes: int, place: str) -> list[str]:
    medians, ratios = document["medians"], document["ratios"]
    cell = f"{kilobytes} KB, 1 in flight, {place}"
    found = [number(medians[f"{name}, {cell}"]["p50_us"]["median"]) for name in ("bare", "bare and run", "offramp")]
    found.append(number(medians[f"offramp, {cell}"]["compute_us"]["median"]))
    return [f"{kilobytes} KB", *found, times(ratios[f"added_us, {cell}"]), times(ratios[f"p50_us, {cell}"])]


def _deep_row(document: Document, in_flight: int, place: str) -> list[str]:
    medians, ratios = document["medians"], document["ratios"]
    cell = f"{DEEP} KB, {in_flight} in flight, {place}"
    found = [number(medians[f"{name}, {cell}"]["rate"]["median"]) for name in ("bare", "bare and run", "offramp")]
    return [str(in_flight), place, *found, times(ratios[f"rate, {cell}"]), times(ratios[f"rate and run, {cell}"])]
