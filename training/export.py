"""Pack a trained network: one ONNX file per stage, with its exit, and a manifest.

A stage is captured by `torch.export` and written by torch's ONNX exporter, which folds constants and batch
norm. Nothing of the machine it was made on stays in the file, so equal weights give equal bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

from calibration.hushed import hushed
from calibration.settings import CutSettings
from common.bundle import write_manifest
from common.errors import BundleError
from common.manifest import FORMAT_VERSION
from training.flops import count_flops
from training.network import MultiExitNetwork, StageWithExit

OPSET = 20  # read by onnxruntime 1.22 and later
_EXAMPLE_ROWS = 2
_READ, _WRITTEN = "offramp-in-", "offramp-out-"  # names that no operator's result has, until the graph is there


def export(
    network: MultiExitNetwork, root: Path, *, name: str, cuts: CutSettings, provenance: Mapping[str, Any]
) -> str:
    """Write the stages and a manifest whose operating points still ask the last exit for everything.

    Args:
        network: trained; left in evaluation mode.
        root: an empty directory.
        name: of the bundle.
        cuts: how tensors travel.
        provenance: kept in the manifest as it is.

    Returns:
        The bundle's digest.

    Raises:
        BundleError: when a stage cannot be written as ONNX.
    """
    network.eval()
    tensors = dict(zip((spec.name for spec in network.inputs), network.example(_EXAMPLE_ROWS), strict=True))
    stages = []
    for number in range(len(network.parts)):
        stage = StageWithExit(network, number).eval()
        example = tuple(tensors[name] for name in stage.reads)
        shapes = [network.row_shape(name, tensors[name]) for name in stage.reads]
        raw = stage_to_onnx(stage, example, f"stage{number}", shapes)
        (root / f"stage{number}.onnx").write_bytes(raw)
        with torch.inference_mode():
            flops = count_flops(lambda: tensors.update(zip(stage.writes, stage(*example), strict=True)))  # noqa: B023
        exits = network.exits
        stages.append(
            {
                "file": f"stage{number}.onnx",
                "sha256": hashlib.sha256(raw).hexdigest(),
                "reads": list(stage.reads),
                "writes": list(stage.writes),
                "exit": exits.index(number) if number in exits else None,
                "flops": flops // _EXAMPLE_ROWS,
                "parameters": _parameters(network, number),
            }
        )
    return write_manifest(root, _document(network, tensors, stages, name, cuts, provenance))


def stage_to_onnx(
    stage: torch.nn.Module,
    example: tuple[Tensor, ...],
    name: str,
    shapes: Sequence[tuple[int | str, ...]] | None = None,
) -> bytes:
    """Capture a module that takes `example` and return ONNX bytes with a dynamic first axis, "batch".

    The module names its inputs and outputs in `reads` and `writes`. `shapes` gives the row shape of each input;
    axes with a symbol there are dynamic too.

    Raises:
        BundleError: when it cannot be captured, for instance because its forward branches on data.
    """
    reads, writes = list(stage.reads), list(stage.writes)  # type: ignore[arg-type]
    try:
        with hushed("torch.onnx"):
            program = torch.onnx.export(
                stage,
                example,
                input_names=[f"{_READ}{k}" for k in range(len(reads))],
                output_names=[f"{_WRITTEN}{k}" for k in range(len(writes))],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=(tuple(map(_dynamic, shapes or [()] * len(example))),),
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever tracing meets
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BundleError(f"{name} cannot be written as ONNX: {reason}") from None
    assert program is not None
    model = program.model_proto
    _forget_origin(model, name)
    _name_tensors(model, name, reads, writes)
    onnx.checker.check_model(model)
    raw: bytes = model.SerializeToString(deterministic=True)
    return raw


def _dynamic(shape: tuple[int | str, ...]) -> dict[int, str]:
    """The axes of a tensor that may differ, by name."""
    return {0: "batch"} | {axis: size for axis, size in enumerate(shape, start=1) if isinstance(size, str)}


def _document(
    network: MultiExitNetwork,
    tensors: Mapping[str, Tensor],
    stages: list[dict[str, Any]],
    name: str,
    cuts: CutSettings,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    crossings = [network.crossing(cut) for cut in range(len(network.parts) - 1)]
    used = dict.fromkeys((*(s.name for s in network.inputs), *(t for s in stages for t in (*s["reads"], *s["writes"]))))
    everything = [None] * (len(network.exits) - 1)
    image = asdict(network.image) if network.image is not None else None
    if image is not None:
        image["size"] = list(image["size"])
    return {
        "format_version": FORMAT_VERSION,
        "name": name,
        "input": {"tensors": [spec.name for spec in network.inputs], "image": image},
        "classes": list(network.classes),
        "tensors": {key: _tensor(network, key, tensors[key]) for key in used},
        **({"buckets": {symbol: list(sizes) for symbol, sizes in network.buckets.items()}} if network.buckets else {}),
        "stages": stages,
        "cuts": [{"tensors": [_crossing(network, tensors[key], key, cuts) for key in names]} for names in crossings],
        "exits": [
            {"stage": stage, "logits": network.logits_name(stage), "temperature": 1.0}
            | ({"gate": network.gate_name(stage)} if network.parts[stage].gate is not None else {})
            for stage in network.exits
        ],
        "operating_points": {
            point: {"criterion": "max-probability", "thresholds": [*everything, 0.0]} for point in ("default", "full")
        },
        "provenance": dict(provenance),
    }


def _tensor(network: MultiExitNetwork, name: str, tensor: Tensor) -> dict[str, Any]:
    shape = {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(network.row_shape(name, tensor))}
    pad = next((spec.pad for spec in network.inputs if spec.name == name), 0.0)
    return shape | ({"pad": pad} if pad else {})


def _crossing(network: MultiExitNetwork, tensor: Tensor, name: str, cuts: CutSettings) -> dict[str, Any]:
    """Integers, masks and logits travel uncoded."""
    plain = not tensor.is_floating_point() or name in {network.logits_name(stage) for stage in network.exits}
    if plain:
        return {"name": name, "codec": "raw", "compression": "none"}
    return {"name": name, "codec": cuts.codec, "compression": cuts.compression}


def _parameters(network: MultiExitNetwork, stage: int) -> int:
    part = network.parts[stage]
    modules = [module for module in (part.body, part.head, part.gate) if module is not None]
    return sum(p.numel() for module in modules for p in module.parameters())


def _forget_origin(model: onnx.ModelProto, name: str) -> None:
    """Drop stack traces, source paths and inferred shapes; they name the machine and feed nothing."""
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.graph.name = name
    model.graph.ClearField("value_info")
    model.graph.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    for group in (model.graph.node, model.graph.input, model.graph.output, model.graph.initializer, model.functions):
        for item in group:
            item.ClearField("metadata_props")
            item.ClearField("doc_string")
    for function in model.functions:
        for node in function.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")


def _name_tensors(model: onnx.ModelProto, name: str, reads: list[str], writes: list[str]) -> None:
    """Give inputs and outputs their names; values inside that are called the same make way."""
    graph = model.graph
    wanted = {f"{_READ}{k}": read for k, read in enumerate(reads)}
    wanted |= {f"{_WRITTEN}{k}": write for k, write in enumerate(writes)}
    if [v.name for v in (*graph.input, *graph.output)] != list(wanted):
        raise BundleError(f"{name} hands a tensor on unchanged. Let a later stage read the earlier tensor itself.")
    inside = {value for node in graph.node for value in node.output} | {weight.name for weight in graph.initializer}
    renamed = wanted | {value: f"{value}-inside" for value in inside & {*reads, *writes}}
    named: list[Any] = [*graph.input, *graph.output, *graph.initializer]
    for item in named:
        item.name = renamed.get(item.name, item.name)
    _rename_values(graph, renamed)


def _rename_values(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [renamed.get(value, value) for value in node.input]
        node.output[:] = [renamed.get(value, value) for value in node.output]
        for attribute in node.attribute:  # bodies of loops and branches read values from outside
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _rename_values(inner, renamed)
