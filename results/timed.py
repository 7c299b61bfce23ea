"""What networks that were trained for a table take on onnxruntime, at the thresholds that the table chose."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibration import latency
from calibration.datasets import load_test
from calibration.latency import WHOLE, Fresh, answering, measure_latency
from calibration.served import Served
from calibration.whole import Whole
from common.bundle import Bundle
from common.manifest import Exit, OperatingPoint
from results.runs import Run, Settings
from results.trained import with_weights
from training.export import export


@dataclass(frozen=True, kw_only=True)
class Point:
    """Thresholds of a rule on the largest probability."""

    name: str
    thresholds: Sequence[float]  # one per exit; the last is not asked
    combined: bool  # every exit answers together with those before it


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A network and the points at which it is timed; without early exits where there are none."""

    run: Run
    exits: tuple[Exit, ...] = ()  # with temperatures and combinations
    points: Sequence[Point] = ()


def mean_times(
    contenders: Mapping[str, Contender], settings: Settings, *, whole: str, rounds: int, rows: int
) -> dict[str, Any]:
    """Mean microseconds of a test row, batch 1, one thread, all contenders in turn.

    Args:
        contenders: by name; all take the same rows.
        settings: where their weights lie.
        whole: the contender without exits that the others are held against.
        rounds: each over test rows of its own.
        rows: of a round.

    Returns:
        rounds: name -> point, or `without_exits` -> one mean per round; rows: of a round.
    """
    served = {name: packed(one, settings) for name, one in contenders.items()}
    runs: dict[tuple[str, str], Fresh] = {(name, WHOLE): _whole(served[name]) for name in contenders}
    for name, one in contenders.items():
        runs |= {(name, point.name): answers_at(served[name], point) for point in one.points}
    named = {_key(*key): fresh for key, fresh in runs.items()} | {WHOLE: runs[whole, WHOLE]}
    source, _, _ = with_weights(contenders[whole].run, settings)
    test = load_test(source.recipe.data, settings.data_dir)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in contenders}
    for number in range(rounds):
        part = test.take(np.arange(number * rows, (number + 1) * rows))
        taken = measure_latency(named, served[whole], part, rows)
        for name, point in runs:
            found[name].setdefault(point, []).append(taken[_key(name, point)]["mean_us"])
    return {"rounds": found, "rows": rows}


def _key(name: str, point: str) -> str:
    return f"{name}, {point}"


def packed(one: Contender, settings: Settings) -> Served:
    """The network's stages, exported into the work folder, with its exits as the table fitted them."""
    source, _, network = with_weights(one.run, settings)
    root = settings.work / f"{one.run.name}-stages"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    export(network, root, name=source.recipe.name, cuts=source.recipe.cuts, provenance={})
    served = Served(Bundle(root))
    if one.exits:
        fitted = [
            replace(leave, temperature=known.temperature, combine=known.combine)
            for leave, known in zip(served.manifest.exits, one.exits, strict=True)
        ]
        served.manifest = replace(served.manifest, exits=tuple(fitted))
    return served


def answers_at(served: Served, point: Point) -> Fresh:
    """Loads the network to answer rows at a point, as a tier does."""
    early = [*point.thresholds][: len(served.manifest.exits) - 1]
    wanted = OperatingPoint(
        name=point.name,
        criterion="max-probability",
        thresholds=(*(math.nan if one > 1.0 else one for one in early), 0.0),
        combine="all" if point.combined else "none",
    )

    def fresh() -> latency.Run:
        again = Served(served.bundle)
        again.manifest = served.manifest
        return answering(again, wanted)

    return fresh


def _whole(served: Served) -> Fresh:
    return lambda: Whole(served).run
