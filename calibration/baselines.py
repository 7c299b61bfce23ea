"""What a bundle is held against: networks without exits, each as one ONNX graph on onnxruntime.

| kind | what it is | where it comes from |
|---|---|---|
| `float32` | the bundle's own network in one graph, no early exits | joined while evaluating |
| `int8` | the same, quantised | made while evaluating |
| `backbone` | the same backbone, trained without exits | stored by `offramp build --baselines` |
| `static` | a smaller or other network, trained without exits | stored by `offramp build --baselines` |

What is stored lies beside the manifest, in `baselines.json` and `baselines/NAME.onnx`, and does not count for the
bundle's digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from calibration.exit_figures import Taken, accuracy_of
from calibration.int8 import quantise
from calibration.intervals import gap_interval
from calibration.one_graph import OneGraph, join_stages
from calibration.settings import Strict, parse_section
from common.bundle import Bundle
from common.errors import BundleError, ConfigError
from common.types import Array, Tensors

FILE = "baselines.json"
FOLDER = "baselines"
_ROWS = 256


class Stored(Strict):
    """A network in `baselines.json`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    kind: Literal["backbone", "static"]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # of baselines/NAME.onnx
    flops: int = Field(ge=0)  # per row
    parameters: int = Field(ge=0)
    model: dict[str, Any]  # factory and options
    training: dict[str, Any]  # epochs, best_epoch, validation_accuracy, seed


class StoredFile(Strict):
    """`baselines.json`: networks and the train files that they were trained on."""

    data: dict[str, Any]  # train_sha256, train_rows
    baselines: list[Stored]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A network without exits, ready to be loaded."""

    name: str
    kind: str
    model: bytes
    facts: Mapping[str, Any]  # for the evaluation

    def load(self) -> OneGraph:
        """A fresh session."""
        return OneGraph(self.model, self.name)


def stored(bundle: Bundle) -> list[Baseline]:
    """The networks that lie beside a bundle, verified; none when nothing was stored.

    Raises:
        BundleError: when `baselines.json` or a network is damaged.
    """
    path = bundle.root / FILE
    if not path.is_file():
        return []
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise BundleError(f"{path} is not valid JSON: {error}.") from None
    try:
        file = parse_section(StoredFile, document, str(path))
    except ConfigError as error:
        raise BundleError(str(error)) from None
    trained, own = (of.get("train_sha256") for of in (file.data, bundle.manifest.provenance.get("data") or {}))
    if trained is not None and own is not None and trained != own:
        raise BundleError(f"{path} is of networks that were trained on other train files than the bundle.")
    return [_read(bundle, entry) for entry in file.baselines]


def derived(bundle: Bundle, tune: Callable[[], Tensors]) -> tuple[list[Baseline], dict[str, str]]:
    """The bundle's own network in one graph, in float32 and in int8.

    Args:
        bundle: what they are made of.
        tune: gives the inputs of the tune split, where the quantiser needs them.

    Returns:
        Baselines, and for each kind that cannot be made here the sentence that says why.
    """
    found: list[Baseline] = []
    left_out: dict[str, str] = {}
    try:
        model = join_stages(bundle).SerializeToString()
        found.append(Baseline(name="float32", kind="float32", model=model, facts={"bytes": len(model)}))
    except ConfigError as error:
        left_out["float32"] = str(error)
    try:
        made = quantise(bundle, tune)
        facts = {"bytes": len(made.model), "method": made.method, "tune_rows": made.rows}
        found.append(Baseline(name="int8", kind="int8", model=made.model, facts=facts))
    except ConfigError as error:
        left_out["int8"] = str(error)
    return found, left_out


def each_baseline(
    baselines: Sequence[Baseline], inputs: Tensors, labels_N: Array, points: Mapping[str, Taken]
) -> list[dict[str, Any]]:
    """Accuracy of every baseline, and how far each operating point lies above it on the same rows."""
    found = []
    for one in baselines:
        right_N = _answers(one.load(), inputs, len(labels_N)) == labels_N
        gaps = {
            name: {
                "gap": float(rows.right_N.mean()) - float(right_N.mean()),
                "interval": gap_interval(rows.right_N, right_N).document(),
            }
            for name, rows in points.items()
        }
        found.append({"name": one.name, "kind": one.kind, **accuracy_of(right_N), **one.facts, "gaps": gaps})
    return found


def rivals(baselines: Sequence[Mapping[str, Any]], points: Sequence[str], latency: Mapping[str, Any]) -> dict[str, Any]:
    """For every operating point the quickest float32 network without exits that is as accurate.

    As accurate: the 95 % paired interval of the gap does not show the operating point to be better.

    Returns:
        point -> `name`, and `speedup`: its mean time over that of the operating point; null where there is none.
    """
    found: dict[str, Any] = {}
    for point in points:
        equal = [
            one for one in baselines if one["kind"] in ("backbone", "static") and one["gaps"][point]["interval"][0] <= 0
        ]
        best = min(equal, key=lambda one: float(one["latency"]["mean_us"]), default=None)
        found[point] = best and {
            "name": best["name"],
            "speedup": round(best["latency"]["mean_us"] / latency[point]["mean_us"], 3),
        }
    return found


def _read(bundle: Bundle, entry: Stored) -> Baseline:
    path = bundle.root / FOLDER / f"{entry.name}.onnx"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from None
    if hashlib.sha256(raw).hexdigest() != entry.sha256:
        raise BundleError(f"{path} does not match its sha256 in {FILE}: it was changed.")
    facts = {"bytes": len(raw), "flops": entry.flops, "parameters": entry.parameters, "model": entry.model}
    return Baseline(name=entry.name, kind=entry.kind, model=raw, facts=facts)


def _answers(graph: OneGraph, inputs: Tensors, rows: int) -> Array:
    parts = ({name: array[at : at + _ROWS] for name, array in inputs.items()} for at in range(0, rows, _ROWS))
    return np.concatenate([graph.run(part).argmax(axis=1) for part in parts])
