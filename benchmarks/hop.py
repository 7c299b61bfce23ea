"""One hop between tiers against a bare grpc.aio stream with the same payload and a reply of 40 bytes.

The device tier and the edge are processes of their own, and so are both ends of the bare stream; every process
runs uvloop. Stage 1 on the edge only picks ten numbers; a bare run of it is taken off the hop's time, all the
rest is the hop: framing, gRPC, checks, batching, deciding, and the answer's way back. Nothing is coded, so that
the whole activation travels.
"""

from __future__ import annotations

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
    rounds, count = (3, 100) if quick else (15, 300)
    recorder = Recorder("hop", rounds=rounds, requests_per_cell=count, reply_bytes_of_the_bare_stream=40)
    port = free_port()
    server = python("benchmarks.floors.grpc_stream", str(port), log=BUILT / "grpc-stream.log")
    try:
        wait_for_port(server, port)
        bare = python("benchmarks.hop_client", "bare", str(port), piped=True)
        for kilobytes in SIZES:
            print(f"  hop: {kilobytes} KB", flush=True)
            _size(recorder, (bare, server), kilobytes, rounds, count)
        bare.stop()
    finally:
        server.stop()
    return recorder.save(keep=not quick, ratios=_ratios(recorder))


def _size(recorder: Recorder, bare: tuple[Child, Child], kilobytes: int, rounds: int, count: int) -> None:
    bundle = hop_bundle(kilobytes)
    tiers = Tiers(f"hop-{kilobytes}k", {"device": 1, "edge": "rest"}, bundle=bundle)
    try:
        tiers.start("edge")
        device = python("benchmarks.hop_client", "offramp", str(tiers.config), piped=True, log=BUILT / "device.log")
        ends = {"bare": bare, "offramp": (device, tiers.children["edge"])}
        tiers.children["device"] = device  # stopped with the others
        for place, cores in PLACES.items():
            for pair in ends.values():
                for child, on in zip(pair, cores(), strict=True):
                    child.pin(on)
            depths = (1, *_IN_FLIGHT) if kilobytes == DEEP else (1,)
            for in_flight in depths:
                for client, _ in ends.values():  # warm
                    client.ask(kilobytes=kilobytes, in_flight=in_flight, count=50)
                for number_ in range(rounds):
                    for name, (client, _) in ends.items() if number_ % 2 else reversed(ends.items()):
                        question = {"bundle": str(bundle)} if name == "offramp" and in_flight == 1 else {}
                        many = count * 5 if in_flight > 1 else count if kilobytes < 1024 else count // 3
                        numbers = client.ask(kilobytes=kilobytes, in_flight=in_flight, count=many, **question)
                        if "compute_us" in numbers:
                            numbers["added_us"] = numbers["p50_us"] - numbers["compute_us"]
                        elif in_flight == 1:
                            numbers["added_us"] = numbers["p50_us"]
                        recorder.add(f"{name}, {kilobytes} KB, {in_flight} in flight, {place}", **numbers)
        recorder.round_done(rounds - 1, rounds)
    finally:
        tiers.stop()


def _ratios(recorder: Recorder) -> dict[str, dict[str, float]]:
    ratios = {}
    for cell in recorder.cells:
        name, _, rest = cell.partition(", ")
        if name == "offramp":
            for each in ("added_us",) if " 1 in flight" in rest else ("rate",):
                ratios[f"{each}, {rest}"] = recorder.ratio(each, cell, f"bare, {rest}")
    return ratios


def tables(document: Document) -> str:
    """The page's tables."""
    medians, ratios = document["medians"], document["ratios"]
    rows = []
    for kilobytes in SIZES:
        row = [f"{kilobytes} KB"]
        for place in PLACES:
            cell = f"{kilobytes} KB, 1 in flight, {place}"
            row += [number(medians[f"{name}, {cell}"]["added_us"]["median"]) for name in ("bare", "offramp")]
            row.append(times(ratios[f"added_us, {cell}"]))
        rows.append(row)
    head = ["activation"]
    for place in PLACES:
        head += [f"bare stream us, {place}", "offramp us", "ratio"]
    deep = []
    for in_flight in _IN_FLIGHT:
        row = [f"{DEEP} KB, {in_flight} in flight"]
        for place in PLACES:
            cell = f"{DEEP} KB, {in_flight} in flight, {place}"
            row += [number(medians[f"{name}, {cell}"]["rate"]["median"]) for name in ("bare", "offramp")]
            row.append(times(ratios[f"rate, {cell}"]))
        deep.append(row)
    deep_head = [each.replace(" us", " /s") for each in head]
    return "\n\n".join([table(head, rows), "Requests per second:", table(deep_head, deep)])
