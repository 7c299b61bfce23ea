"""Who runs which stages, where a request enters, and what travels: everything that can stand in a row of the tables.

A layout is one `tiers.yaml`. Operating point `full` takes no early exit, so that the same processes are a static split
(Kang et al., "Neurosurgeon", 2017) when they are asked for it, and device-only or cloud-only where one tier has all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fog.network import ADDRESS
from benchmarks.paths import BUILT
from common.bundle import MANIFEST, Bundle, write_manifest

FULL = "full"
_ORDER = tuple(ADDRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One configuration.

    Attributes:
        counts: stages of the device, of the edge, of the cloud; later ones may be left out.
        inputs: forward the compressed input instead of activations.
    """

    counts: tuple[int, ...]
    inputs: bool = False

    @property
    def stages(self) -> dict[str, int]:
        """Tier -> number of its stages, from the device up."""
        return dict(zip(_ORDER, self.counts, strict=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to get an answer: a layout, the tier whose REST door is asked, and the operating point."""

    layout: Layout
    entry: str = "device"
    point: str = FULL

    @property
    def stages(self) -> dict[str, int]:
        """Tier -> number of stages that it runs for a request that enters there."""
        found: dict[str, int] = {}
        upto = 0
        for tier, count in self.layout.stages.items():
            upto += count
            if _ORDER.index(tier) >= _ORDER.index(self.entry):
                found[tier] = upto - sum(found.values())
        return found

    @property
    def hops(self) -> int:
        """Links that every request crosses before anything is computed."""
        return _ORDER.index(self.entry)

    @property
    def name(self) -> str:
        """What runs where, for readers."""
        parts = [f"{tier} {count}" for tier, count in self.stages.items()]
        return ", ".join([*parts, "input forwarded"] if self.layout.inputs and len(parts) > 1 else parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """All ways for a network of so many stages."""

    layouts: tuple[Layout, ...]
    device: Way  # the whole network on the device
    cloud: Way  # the whole network in the cloud, which gets PNG files
    splits: tuple[Way, ...]  # without exits
    offramp: tuple[Way, ...]  # with exits
    fixed: Way  # with exits: one stage on the device, one at the edge, the others in the cloud


def field(stages: int, *, inputs: bool, point: str) -> Field:
    """Every way that is tried.

    Edge and cloud are as quick as each other here, so that one link more can only cost: the cloud has a share only
    where every tier has one, and where everything runs there.

    Args:
        stages: of the bundle, at least 3.
        inputs: whether forwarding the compressed input is worth a try.
        point: the operating point with early exits.
    """
    alone = Layout(counts=(stages,))
    edges = [Layout(counts=(k, stages - k)) for k in range(1, stages)]
    three = Layout(counts=(1, 1, stages - 2))
    splits = [*((each, "device") for each in edges), (edges[0], "edge")]
    copies = [Layout(counts=each.counts, inputs=True) for each in (edges[0], three)] if inputs else []
    exits = [alone, edges[0], three, *copies]
    return Field(
        layouts=(alone, *edges, three, *copies),
        device=Way(layout=alone),
        cloud=Way(layout=three, entry="cloud"),
        splits=tuple(Way(layout=each, entry=entry) for each, entry in splits),
        offramp=(
            *(Way(layout=each, point=point) for each in exits),
            Way(layout=edges[0], entry="edge", point=point),
            Way(layout=three, entry="cloud", point=point),
        ),
        fixed=Way(layout=three, point=point),
    )


def bundles(root: Path) -> Mapping[bool, Path]:
    """The bundle as it is, and (True) a copy whose cuts all forward the compressed input."""
    copy = BUILT / f"{root.name}-input"
    copy.mkdir(parents=True, exist_ok=True)
    document = json.loads((root / MANIFEST).read_text())
    for stage in Bundle(root).manifest.stages:
        shutil.copyfile(root / stage.file, copy / stage.file)
    for cut in document["cuts"]:
        cut["forward"] = "input"
    write_manifest(copy, document)
    return {False: root, True: copy}
