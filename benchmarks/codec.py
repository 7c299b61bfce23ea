"""Codecs for activations: size, time and agreement, and the bytes that a system forwards for each input.

Every codec with every compression codes the activations of each cut one row at a time, as forwarded rows mostly
travel. Agreement is the share of inputs whose last exit gives the same label as without coding. ResNet-20 has
random weights here: its sizes and times count, its agreement says little.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import resnet
from benchmarks.http_load import ask_once
from benchmarks.paths import BUILT, BUNDLE, IMAGES
from benchmarks.results import Document, Recorder
from benchmarks.tables import number, table
from benchmarks.tiers import Tiers
from common.bundle import Bundle, write_manifest
from common.manifest import COMPRESSIONS, CutTensor
from common.runtimes.onnx import OnnxStage
from common.wire.codecs import decode, encode, travels

CODECS = ("raw", "float16", "bfloat16", "u8", "u8c", "u4", "u4c")
HOW = [f"{codec} + {compression}" for codec, compression in itertools.product(CODECS, COMPRESSIONS)]
WAYS = ("as shipped", "u4c + zstd", "input + zstd")
_MOST_ROWS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Activations at one cut, and what the rest of the network makes of them."""

    name: str
    shape: tuple[int, ...]
    rows: np.ndarray  # [N, ...] float32
    labels: Callable[[np.ndarray], np.ndarray]


def cuts() -> list[Cut]:
    """The cuts of the shipped bundle on its example images, and of ResNet-20 on its pool."""
    images = np.stack([np.asarray(Image.open(path))[None] for path in sorted(IMAGES.glob("*.png"))])
    return [*_cuts(BUNDLE, "mnist-lenet", images), *_cuts(resnet.chain(), "resnet20", resnet.pool()[:_MOST_ROWS])]


def _cuts(root: Path, name: str, images: np.ndarray) -> list[Cut]:
    bundle = Bundle(root)
    stages = [OnnxStage.load(bundle, k, 1) for k in range(len(bundle.manifest.stages))]
    last = bundle.manifest.exits[-1].logits
    found, live = [], images
    for k, stage in enumerate(stages[:-1]):
        tensor = bundle.manifest.cuts[k][0].name
        live = stage.run({bundle.manifest.stages[k].reads[0]: live})[tensor]

        def labels(rows: np.ndarray, behind: int = k + 1) -> np.ndarray:
            for number_, each in enumerate(stages[behind:], behind):
                written = each.run({bundle.manifest.stages[number_].reads[0]: rows})
                rows = written[last] if last in written else written[bundle.manifest.cuts[number_][0].name]
            return rows.argmax(axis=1)

        found.append(Cut(name=f"{name} cut {k}", shape=live.shape[1:], rows=live, labels=labels))
    return found


def run(*, quick: bool) -> Document:
    """Measure and save."""
    rounds, repeats = (3, 20) if quick else (15, 100)
    recorder = Recorder("codec", rounds=rounds, rows_timed_per_round=repeats)
    found = cuts()
    facts = {}
    for cut in found:
        wanted = cut.labels(cut.rows)
        for how in HOW:
            facts[f"{cut.name}, {how}"] = _size(cut, _tensor(how), wanted)
    for each in range(rounds):
        for cut, how in itertools.product(found, HOW):
            recorder.add(f"{cut.name}, {how}", us=_time(cut, _tensor(how), repeats))
        recorder.round_done(each, rounds)
    shapes = {cut.name: list(cut.shape) for cut in found}
    return recorder.save(keep=not quick, shapes=shapes, facts=facts, forwarded=_forwarded())


def _tensor(how: str) -> CutTensor:
    codec, compression = how.split(" + ")
    return CutTensor(name="x", codec=codec, compression=compression)


def _size(cut: Cut, how: CutTensor, wanted: np.ndarray) -> dict[str, float]:
    coded = [encode(row[None], how) for row in cut.rows]
    restored = np.concatenate([decode(each, max_bytes=1 << 30) for each in coded])
    return {
        "bytes": float(np.mean([travels(each) for each in coded])),
        "raw_bytes": float(cut.rows[0].nbytes),
        "agreement": float((cut.labels(restored) == wanted).mean()),
    }


def _time(cut: Cut, how: CutTensor, repeats: int) -> float:
    """Median microseconds to code and restore one row."""
    taken = []
    for at in range(repeats):
        row = cut.rows[at % len(cut.rows)][None]
        begin = time.perf_counter_ns()
        decode(encode(row, how), max_bytes=1 << 30)
        taken.append(time.perf_counter_ns() - begin)
    return float(np.median(taken)) / 1e3


def _forwarded() -> dict[str, dict[str, float]]:
    """Bytes that real tiers forward, framing counted, beside what the inputs themselves take."""
    files = sorted(IMAGES.glob("*.png"))
    pixels = [np.asarray(Image.open(path)) for path in files]
    result: dict[str, dict[str, float]] = {
        "inputs": {
            "raw": float(pixels[0].nbytes),
            "png": float(np.mean([path.stat().st_size for path in files])),
            "zlib": float(np.mean([len(zlib.compress(each.tobytes())) for each in pixels])),
        }
    }
    for way in WAYS:
        result[way] = _through_tiers(way, [path.read_bytes() for path in files])
    return result


def _through_tiers(way: str, files: list[bytes]) -> dict[str, float]:
    tiers = Tiers("codec", {"device": 1, "edge": 1, "cloud": "rest"}, bundle=_bundle(way))
    numbers: dict[str, float] = {}
    try:
        for tier in ("cloud", "edge", "device"):
            tiers.start(tier)
        tiers.wait_until_up("device")
        tiers.wait_until_up("edge")
        for point in ("default", "full"):
            before = {tier: _sent(tiers, tier) for tier in ("device", "edge")}
            for file in files:
                head = f"POST /predict?operating_point={point} HTTP/1.1\r\nhost: localhost\r\n"
                head += f"content-type: image/png\r\ncontent-length: {len(file)}\r\n\r\n"
                answer = ask_once(tiers.rest, head.encode() + file)["answers"][0]
                if answer["degraded"]:
                    raise RuntimeError(f"an answer was degraded: {answer}")
            for tier in ("device", "edge"):
                sent, rows = (b - a for a, b in zip(before[tier], _sent(tiers, tier), strict=True))
                numbers |= {f"{point}, {tier}, bytes": sent, f"{point}, {tier}, rows": rows}
    finally:
        tiers.stop()
    return numbers | {"inputs": float(len(files))}


def _sent(tiers: Tiers, tier: str) -> tuple[float, float]:
    """Bytes that a tier has forwarded, and rows that others have decided for it."""
    total = tiers.metric(tier, "offramp_answers_total")
    return tiers.metric(tier, "offramp_forwarded_bytes_total"), total - tiers.metric(
        tier, "offramp_answers_total", by=tier
    )


def _bundle(way: str) -> Path:
    """The shipped bundle with other codes at its cuts; ranges are those of each message."""
    if way == "as shipped":
        return BUNDLE
    root = BUILT / f"mnist-{way.replace(' + ', '-')}"
    root.mkdir(parents=True, exist_ok=True)
    for file in BUNDLE.glob("*.onnx"):
        shutil.copy(file, root / file.name)
    document = json.loads((BUNDLE / "manifest.json").read_text())
    codec, compression = way.split(" + ")
    for cut in document["cuts"]:
        if codec == "input":
            cut["forward"] = "input"
        else:
            cut["tensors"] = [
                {"name": each["name"], "codec": codec, "compression": compression} for each in cut["tensors"]
            ]
    if codec == "input":
        document["input"]["compression"] = compression
    write_manifest(root, document)
    return root


def tables(document: Document) -> str:
    """The page's tables."""
    parts = []
    for cut, shape in document["shapes"].items():
        raw = document["facts"][f"{cut}, {HOW[0]}"]["raw_bytes"]
        rows = []
        for how in HOW:
            fact, took = document["facts"][f"{cut}, {how}"], document["medians"][f"{cut}, {how}"]["us"]
            smaller = f"{number(fact['raw_bytes'] / fact['bytes'])}x"
            rows.append([how, number(fact["bytes"]), smaller, number(took["median"]), f"{fact['agreement']:.1%}"])
        title = f"{cut}, {' x '.join(map(str, shape))}, {number(raw)} bytes as float32:"
        parts += [title, table(["codec", "bytes", "smaller", "encode + decode us", "same label"], rows)]
    return "\n\n".join([*parts, _forwarded_tables(document["forwarded"])])


def _forwarded_tables(forwarded: dict[str, dict[str, float]]) -> str:
    inputs = forwarded["inputs"]
    rows = []
    for way in WAYS:
        found = forwarded[way]
        row = [way]
        for tier in ("device", "edge"):
            per_row = found[f"full, {tier}, bytes"] / found[f"full, {tier}, rows"]
            mix, went = found[f"default, {tier}, bytes"], found[f"default, {tier}, rows"]
            row += [number(per_row), f"{number(mix / found['inputs'])} ({went:.0f} rows)"]
        row.append(f"{number(inputs['raw'] * found['inputs'] / found['default, device, bytes'])}x")
        rows.append(row)
    head = ["coded", "device: bytes per forwarded row", "per input at `default`"]
    head += ["edge: bytes per forwarded row", "per input at `default`", "device, below raw inputs"]
    about = f"The inputs themselves take {number(inputs['raw'])} bytes raw, {number(inputs['png'])} as PNG and "
    about += f"{number(inputs['zlib'])} with zlib on average. Bytes forwarded count the whole message with gRPC's and "
    return about + "HTTP/2's frame headers:\n\n" + table(head, rows)
