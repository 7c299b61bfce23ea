"""Rows per second after exits: ResNet-20 in three stages, 0, 30, 60 or 90 percent leaving at each early exit.

The ideal is the bare runtime: the same sessions on batches of 64 rows, compacted after every exit. Beside it the
same tier without exits: the network as one stage, every row through all of it; its ideal is that stage's session. Both
the tier alone (requests handed over in its own process) and the server (array files over REST) are measured.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks import resnet
from benchmarks.batching_worker import BATCH
from benchmarks.children import Child, python
from benchmarks.paths import BUILT
from benchmarks.results import Document, Recorder
from benchmarks.tables import number, table, times
from benchmarks.tiers import Tiers

CALLERS = {"16 callers with 8 rows": (16, 8), "128 callers with 1 row": (128, 1)}
_NONE = "no exits"
_WARM_S = 0.4


def run(*, quick: bool) -> Document:
    """Measure and save."""
    rounds, seconds = (2, 0.6) if quick else (4, 1.2)
    recorder = Recorder(
        "batching", rounds=rounds, seconds_per_cell=seconds, network="ResNet-20, 3 stages, 3 exits, random weights",
        rows_per_run=BATCH, runtime="onnxruntime, 1 thread",
    )  # fmt: skip
    chain = Tiers("resnet20", {"device": "rest"}, bundle=resnet.chain())
    whole = Tiers("resnet20-whole", {"device": "rest"}, bundle=resnet.whole())
    inner = {
        name: Tiers(f"resnet20-{name}-inner", {"device": "rest"}, bundle=bundle)
        for name, bundle in (("chain", resnet.chain()), ("whole", resnet.whole()))
    }
    children: list[Child] = []
    try:
        load = python("benchmarks.http_load", piped=True)
        ideal = python("benchmarks.batching_worker", "ideal", piped=True)
        children += [load, ideal]
        tiers = {}
        for name, config in inner.items():
            log = BUILT / f"batching-{name}.log"
            arguments = ("benchmarks.batching_worker", "tier", str(config.config))
            tiers[name] = python(*arguments, piped=True, log=log)
            children.append(tiers[name])
        chain.start("device")
        whole.start("device")
        for each in range(rounds):
            _round(recorder, seconds, ideal, load, tiers, {"chain": chain, "whole": whole})
            recorder.round_done(each, rounds)
    finally:
        for child in children:
            child.stop()
        chain.stop()
        whole.stop()
    return recorder.save(keep=not quick, ratios=_ratios(recorder))


def _round(
    recorder: Recorder,
    seconds: float,
    ideal: Child,
    load: Child,
    tiers: Mapping[str, Child],
    servers: Mapping[str, Tiers],
) -> None:
    recorder.add(f"ideal, {_NONE}", **ideal.ask(share=None, seconds=seconds))
    for share in resnet.SHARES:
        recorder.add(f"ideal, {share}", **ideal.ask(share=share, seconds=seconds))
        for who, (callers, rows) in CALLERS.items():
            for net, point in (("chain", f"leave{share}"), ("whole", "full")):
                if net == "whole" and share != resnet.SHARES[0]:
                    continue
                label = f"{share}" if net == "chain" else _NONE
                asked = {"callers": callers, "rows": rows, "seconds": seconds, "warm": _WARM_S}
                recorder.add(f"tier, {label}, {who}", **tiers[net].ask(point=point, **asked))
                port = servers[net].rest
                numbers = load.ask(
                    port=port, form=f"rows:{point}:{rows}", clients=callers, seconds=seconds, warm=_WARM_S
                )
                recorder.add(f"server, {label}, {who}", rate=numbers["rate"] * rows, p50_us=numbers["p50_us"])


def _ratios(recorder: Recorder) -> dict[str, dict[str, float]]:
    ratios = {}
    for share in (*resnet.SHARES, _NONE):
        ratios[f"ideal, {share}, to no exits"] = recorder.ratio("rate", f"ideal, {share}", f"ideal, {_NONE}")
        for who in CALLERS:
            for kind in ("tier", "server"):
                cell = f"{kind}, {share}, {who}"
                ratios[f"{cell}, to ideal"] = recorder.ratio("rate", cell, f"ideal, {share}")
                ratios[f"{cell}, to no exits"] = recorder.ratio("rate", cell, f"{kind}, {_NONE}, {who}")
    return ratios


def tables(document: Document) -> str:
    """The page's tables."""
    medians, ratios = document["medians"], document["ratios"]
    parts = []
    for who in CALLERS:
        rows = []
        for share in (*resnet.SHARES, _NONE):
            row = [_NONE if share == _NONE else f"{share} %"]
            for kind in ("ideal", "tier", "server"):
                cell = f"{kind}, {share}" if kind == "ideal" else f"{kind}, {share}, {who}"
                row.append(number(medians[cell]["rate"]["median"]))
                if kind != "ideal":
                    row.append(times(ratios[f"{cell}, to ideal"]))
                row.append("" if share == _NONE else times(ratios[f"{cell}, to no exits"]))
            rows.append(row)
        head = ["leave per exit", "ideal rows/s", "to no exits"]
        for kind in ("tier", "server"):
            head += [f"{kind} rows/s", "of the ideal", "to no exits"]
        parts += [f"{who}:", table(head, rows)]
    return "\n\n".join(parts)
