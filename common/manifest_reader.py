"""Reading `manifest.json`: every key checked, every mistake one sentence that names the place.

Unknown keys are refused, so that a misspelt one is not silently without effect.
"""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import Any

from common import manifest_values as kinds
from common.criteria import CRITERIA
from common.errors import BundleError
from common.manifest import (
    AFFINE,
    CODECS,
    COMBINE,
    COMPRESSIONS,
    DTYPES,
    FORMAT_VERSION,
    Combination,
    CutTensor,
    Exit,
    FittedGate,
    ImageSpec,
    Manifest,
    OperatingPoint,
    Range,
    Stage,
    TensorSpec,
)
from common.manifest_checks import check_exits, check_graph, check_points


def _threshold(value: object, where: str) -> float:
    return math.nan if value is None else kinds.number(value, where)


def _tensor(value: object, where: str, name: str) -> TensorSpec:
    read = kinds.Reader(value, where)
    spec = TensorSpec(
        name=name,
        dtype=read.take("dtype", kinds.one_of(*sorted(DTYPES))),
        shape=read.take("shape", kinds.list_of(kinds.size)),
        pad=read.take("pad", kinds.number, 0.0),
    )
    read.done()
    return spec


def _image(value: object, where: str) -> ImageSpec:
    read = kinds.Reader(value, where)
    size = read.take("size", kinds.list_of(kinds.positive))
    if len(size) != 2:
        raise kinds.wrong(f"{where}.size", "[height, width]", list(size))
    spec = ImageSpec(
        tensor=read.take("tensor", kinds.name),
        mode=read.take("mode", kinds.one_of("L", "RGB"), "RGB"),
        size=(size[0], size[1]),
        fit=read.take("fit", kinds.one_of("exact", "stretch", "contain", "cover"), "stretch"),
        layout=read.take("layout", kinds.one_of("CHW", "HWC"), "CHW"),
        invert=read.take("invert", kinds.flag, False),
    )
    read.done()
    return spec


def _stage(value: object, where: str) -> Stage:
    read = kinds.Reader(value, where)
    digest = read.take("sha256", kinds.text)
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise kinds.wrong(f"{where}.sha256", "64 hexadecimal digits", digest)
    stage = Stage(
        file=read.take("file", kinds.text),
        sha256=digest,
        reads=read.take("reads", kinds.list_of(kinds.name)),
        writes=read.take("writes", kinds.list_of(kinds.name)),
        exit=read.take("exit", kinds.or_null(kinds.count), None),
        view=read.take("view", kinds.or_null(kinds.count), None),
        flops=read.take("flops", kinds.count, 0),
        parameters=read.take("parameters", kinds.count, 0),
    )
    read.done()
    return stage


def _cut_tensor(value: object, where: str) -> CutTensor:
    read = kinds.Reader(value, where)
    tensor = CutTensor(
        name=read.take("name", kinds.name),
        codec=read.take("codec", kinds.one_of(*CODECS), "raw"),
        compression=read.take("compression", kinds.one_of(*COMPRESSIONS), "none"),
        low=read.take("low", kinds.or_null(_range), None),
        high=read.take("high", kinds.or_null(_range), None),
    )
    read.done()
    _check_range(tensor, where)
    return tensor


def _range(value: object, where: str) -> Range:
    return kinds.list_of(kinds.number)(value, where) if isinstance(value, list) else kinds.number(value, where)


def _check_range(tensor: CutTensor, where: str) -> None:
    if tensor.low is None and tensor.high is None:
        return
    if tensor.low is None or tensor.high is None:
        raise BundleError(f"manifest.json: {where} must give both low and high, or neither.")
    if tensor.codec not in AFFINE:
        raise BundleError(f"manifest.json: {where} gives low and high, which {tensor.codec} has no use for.")
    low, high = ((end if isinstance(end, tuple) else (end,)) for end in (tensor.low, tensor.high))
    if isinstance(tensor.low, tuple) != isinstance(tensor.high, tuple) or len(low) != len(high):
        raise BundleError(f"manifest.json: {where} must give as many values in low as in high.")
    if not all(a < b for a, b in zip(low, high, strict=True)):
        raise BundleError(f"manifest.json: {where}.low must be below high.")


def _cut(value: object, where: str) -> tuple[tuple[CutTensor, ...], bool]:
    """The tensors of a cut, and whether the input travels there instead of them."""
    read = kinds.Reader(value, where)
    tensors = read.take("tensors", kinds.list_of(_cut_tensor))
    forward = read.take("forward", kinds.one_of("activations", "input"), "activations")
    read.done()
    return tensors, forward == "input"


def _combination(value: object, where: str) -> Combination:
    read = kinds.Reader(value, where)
    numbers = kinds.list_of(kinds.number)
    combination = Combination(weights=read.take("weights", numbers), bias=read.take("bias", numbers))
    read.done()
    if min(combination.weights, default=0.0) < 0.0:
        raise kinds.wrong(f"{where}.weights", "numbers from 0", list(combination.weights))
    return combination


def _fitted_gate(value: object, where: str) -> FittedGate:
    read = kinds.Reader(value, where)
    gate = FittedGate(**{field.name: read.take(field.name, kinds.number) for field in fields(FittedGate)})
    read.done()
    return gate


def _exit(value: object, where: str) -> Exit:
    read = kinds.Reader(value, where)
    leave = Exit(
        stage=read.take("stage", kinds.count),
        logits=read.take("logits", kinds.name),
        temperature=read.take("temperature", kinds.number, 1.0),
        gate=read.take("gate", kinds.or_null(kinds.name), None),
        combine=read.take("combine", kinds.or_null(_combination), None),
    )
    read.done()
    if leave.temperature <= 0:
        raise kinds.wrong(f"{where}.temperature", "a number above 0", leave.temperature)
    return leave


def _measured(value: object, where: str) -> dict[str, Any]:
    """Free but for what is shown of it."""
    read = kinds.Reader(value, where)
    read.take("accuracy", kinds.or_null(kinds.number), None)
    read.take("exit_rates", kinds.or_null(kinds.list_of(kinds.number)), None)
    return kinds.free(value, where)


def _configuration(value: object, where: str) -> dict[str, Any]:
    """Free but for what a tier compares with its own."""
    read = kinds.Reader(value, where)
    read.take("runtime", kinds.or_null(kinds.text), None)
    read.take("precision", kinds.or_null(kinds.text), None)
    read.take("coded_cuts", kinds.or_null(kinds.list_of(kinds.count)), None)
    return kinds.free(value, where)


def _point(value: object, where: str, name: str) -> OperatingPoint:
    read = kinds.Reader(value, where)
    point = OperatingPoint(
        name=name,
        criterion=read.take("criterion", kinds.one_of(*sorted(CRITERIA))),
        thresholds=read.take("thresholds", kinds.list_of(_threshold)),
        combine=read.take("combine", kinds.one_of(*COMBINE), "none"),
        gates=read.take("gates", kinds.list_of(kinds.or_null(_fitted_gate)), ()),
        measured=read.take("measured", kinds.or_null(_measured), None),
        guarantee=read.take("guarantee", kinds.or_null(kinds.free), None),
        configuration=read.take("configuration", kinds.or_null(_configuration), None),
    )
    read.done()
    for i, threshold in enumerate(point.thresholds):
        try:
            CRITERIA[point.criterion].check(threshold)
        except ValueError as error:
            raise BundleError(f"manifest.json: {where}.thresholds[{i}]: {error}") from None
    return point


def parse_manifest(document: object) -> Manifest:
    """Check a decoded manifest.json and return its typed form.

    Raises:
        BundleError: naming the first key that is wrong.
    """
    read = kinds.Reader(document, "")
    version = read.take("format_version", kinds.positive)
    if version > FORMAT_VERSION:
        raise BundleError(
            f"manifest.json has format version {version}. This offramp reads up to {FORMAT_VERSION}: update it."
        )
    name = read.take("name", kinds.name)
    source = kinds.Reader(read.take("input", kinds.free), "input")
    inputs = source.take("tensors", kinds.list_of(kinds.name))
    compression = source.take("compression", kinds.one_of(*COMPRESSIONS), "none")
    cuts = read.take("cuts", kinds.list_of(_cut))
    manifest = Manifest(
        name=name,
        inputs=inputs,
        image=source.take("image", kinds.or_null(_image), None),
        classes=read.take("classes", kinds.list_of(kinds.text)),
        tensors=read.take("tensors", kinds.named(_tensor)),
        buckets=read.take("buckets", kinds.map_of(kinds.list_of(kinds.positive)), {}),
        stages=read.take("stages", kinds.list_of(_stage)),
        cuts=tuple(tensors for tensors, _ in cuts),
        exits=read.take("exits", kinds.list_of(_exit)),
        operating_points=read.take("operating_points", kinds.named(_point)),
        provenance=read.take("provenance", kinds.free, {}),
        input_codes=tuple(CutTensor(name=tensor, compression=compression) for tensor in inputs),
        input_cuts=frozenset(number for number, (_, forwards_input) in enumerate(cuts) if forwards_input),
    )
    source.done()
    read.done()
    check_graph(manifest)
    check_exits(manifest)
    check_points(manifest)
    return manifest
