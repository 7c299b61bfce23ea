"""What a bundle is made of, as plain values: the content of `offramp inspect --json`."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from common.bundle import Bundle
from common.manifest import CutTensor, Manifest, TensorSpec
from common.wire.codecs import stored_at_most

Document = dict[str, Any]


def describe(bundle: Bundle) -> Document:
    """Everything about a bundle whose files have been verified. Sizes are per row; None: it differs by row."""
    m = bundle.manifest
    return {
        "bundle": m.name,
        "digest": bundle.digest,
        "path": str(bundle.root),
        "classes": len(m.classes),
        "inputs": [_tensor(m.tensors[name]) for name in m.inputs],
        "stages": [_stage(bundle, number) for number in range(len(m.stages))],
        "cuts": [_cut(m, number) for number in range(len(m.cuts))],
        "exits": [
            {
                "exit": number,
                "stage": leave.stage,
                "logits": leave.logits,
                "temperature": leave.temperature,
                "gate": leave.gate,
                "combine": None if leave.combine is None else asdict(leave.combine),
            }
            for number, leave in enumerate(m.exits)
        ],
        "operating_points": {
            point.name: {
                "criterion": point.criterion,
                "combine": point.combine,
                "gates": [None if gate is None else asdict(gate) for gate in point.gates],
                "thresholds": [None if math.isnan(t) else t for t in point.thresholds],
                "measured": point.measured,
                "guarantee": point.guarantee,
                "configuration": point.configuration,
            }
            for point in m.operating_points.values()
        },
    }


def _tensor(spec: TensorSpec) -> Document:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _stage(bundle: Bundle, number: int) -> Document:
    stage = bundle.manifest.stages[number]
    return {
        "stage": number,
        "file": stage.file,
        "bytes": (bundle.root / stage.file).stat().st_size,
        "sha256": stage.sha256,
        "reads": [_tensor(bundle.manifest.tensors[name]) for name in stage.reads],
        "writes": [_tensor(bundle.manifest.tensors[name]) for name in stage.writes],
        "exit": stage.exit,
        "flops": stage.flops,
        "parameters": stage.parameters,
    }


def _cut(m: Manifest, number: int) -> Document:
    tensors = [
        {
            **_tensor(m.tensors[crossing.name]),
            "codec": crossing.codec,
            "compression": crossing.compression,
            "raw_bytes": _raw_bytes(m.tensors[crossing.name]),
            "coded_bytes_at_most": _coded_bytes(m.tensors[crossing.name], crossing),
        }
        for crossing in m.cuts[number]
    ]
    return {
        "cut": number,  # lies behind the stage of this number
        "forward": "input" if number in m.input_cuts else "activations",
        "tensors": tensors,
        "raw_bytes": _sum(tensor["raw_bytes"] for tensor in tensors),
        "coded_bytes_at_most": _sum(tensor["coded_bytes_at_most"] for tensor in tensors),
    }


def _raw_bytes(spec: TensorSpec) -> int | None:
    return None if spec.row_elements is None else spec.row_elements * np.dtype(spec.dtype).itemsize


def _coded_bytes(spec: TensorSpec, crossing: CutTensor) -> int | None:
    if spec.row_elements is None:
        return None
    channels = spec.shape[0] if spec.shape else 1
    return stored_at_most(crossing, spec.row_elements, np.dtype(spec.dtype).itemsize, int(channels))


def _sum(sizes: Any) -> int | None:
    known = list(sizes)
    return None if None in known else sum(known)
