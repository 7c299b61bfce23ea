"""Reading `manifest.json`: every key checked, every mistake one sentence that names the place.

Unknown keys are refused, so that a misspelt one is not silently without effect.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

from common.criteria import CRITERIA
from common.errors import BundleError
from common.manifest import (
    CODECS,
    COMPRESSIONS,
    DTYPES,
    FORMAT_VERSION,
    CutTensor,
    Exit,
    ImageSpec,
    Manifest,
    OperatingPoint,
    Stage,
    TensorSpec,
)
from common.manifest_checks import check_exits, check_graph, check_points

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

T = TypeVar("T")


class _Reader:
    """Takes keys out of a JSON object, remembering where it is; `done` refuses what is left."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise BundleError(f"manifest.json: {where or 'the document'} must be an object.")
        self._left = dict(value)
        self._where = where

    def at(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def take(self, key: str, kind: Callable[[object, str], T], *default: T) -> T:
        if key not in self._left:
            if default:
                return default[0]
            raise BundleError(f"manifest.json: {self.at(key)} is missing.")
        return kind(self._left.pop(key), self.at(key))

    def done(self) -> None:
        if self._left:
            raise BundleError(f"manifest.json: {self.at(sorted(self._left)[0])} is not a known key.")


def _bad(where: str, expected: str, value: object) -> BundleError:
    shown = repr(value)
    return BundleError(f"manifest.json: {where} is {shown[:80]}. It must be {expected}.")


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise _bad(where, "a non-empty string", value)
    return value


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise _bad(where, "a name of letters, digits, '.', '_' and '-'", value)
    return value


def _one_of(*choices: str) -> Callable[[object, str], str]:
    def read(value: object, where: str) -> str:
        if value not in choices:
            raise _bad(where, f"one of {', '.join(choices)}", value)
        return str(value)

    return read


def _count(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _bad(where, "a whole number from 0", value)
    return value


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _bad(where, "a finite number", value)
    return float(value)


def _bool(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise _bad(where, "true or false", value)
    return value


def _list_of(kind: Callable[[object, str], T]) -> Callable[[object, str], tuple[T, ...]]:
    def read(value: object, where: str) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise _bad(where, "a list", value)
        return tuple(kind(item, f"{where}[{i}]") for i, item in enumerate(value))

    return read


def _or_null(kind: Callable[[object, str], T]) -> Callable[[object, str], T | None]:
    return lambda value, where: None if value is None else kind(value, where)


def _map_of(kind: Callable[[object, str], T]) -> Callable[[object, str], dict[str, T]]:
    def read(value: object, where: str) -> dict[str, T]:
        if not isinstance(value, dict):
            raise _bad(where, "an object", value)
        return {_name(key, where): kind(item, f"{where}.{key}") for key, item in value.items()}

    return read


def _named(kind: Callable[[object, str, str], T]) -> Callable[[object, str], dict[str, T]]:
    def read(value: object, where: str) -> dict[str, T]:
        return {key: kind(item, f"{where}.{key}", key) for key, item in _map_of(_as_is)(value, where).items()}

    return read


def _as_is(value: object, where: str) -> object:
    return value


def _free(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(where, "an object", value)
    return value


def _size(value: object, where: str) -> int | str:
    return _name(value, where) if isinstance(value, str) else _positive(value, where)


def _positive(value: object, where: str) -> int:
    if _count(value, where) == 0:
        raise _bad(where, "a whole number from 1", value)
    return int(value)  # type: ignore[call-overload,no-any-return]


def _threshold(value: object, where: str) -> float:
    return math.nan if value is None else _number(value, where)


def _tensor(value: object, where: str, name: str) -> TensorSpec:
    read = _Reader(value, where)
    spec = TensorSpec(
        name=name,
        dtype=read.take("dtype", _one_of(*sorted(DTYPES))),
        shape=read.take("shape", _list_of(_size)),
        pad=read.take("pad", _number, 0.0),
    )
    read.done()
    return spec


def _image(value: object, where: str) -> ImageSpec:
    read = _Reader(value, where)
    size = read.take("size", _list_of(_positive))
    if len(size) != 2:
        raise _bad(f"{where}.size", "[height, width]", list(size))
    spec = ImageSpec(
        tensor=read.take("tensor", _name),
        mode=read.take("mode", _one_of("L", "RGB"), "RGB"),
        size=(size[0], size[1]),
        fit=read.take("fit", _one_of("exact", "stretch", "contain", "cover"), "stretch"),
        layout=read.take("layout", _one_of("CHW", "HWC"), "CHW"),
        invert=read.take("invert", _bool, False),
    )
    read.done()
    return spec


def _stage(value: object, where: str) -> Stage:
    read = _Reader(value, where)
    digest = read.take("sha256", _text)
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise _bad(f"{where}.sha256", "64 hexadecimal digits", digest)
    stage = Stage(
        file=read.take("file", _text),
        sha256=digest,
        reads=read.take("reads", _list_of(_name)),
        writes=read.take("writes", _list_of(_name)),
        exit=read.take("exit", _or_null(_count), None),
        view=read.take("view", _or_null(_count), None),
        flops=read.take("flops", _count, 0),
        parameters=read.take("parameters", _count, 0),
    )
    read.done()
    return stage


def _cut_tensor(value: object, where: str) -> CutTensor:
    read = _Reader(value, where)
    tensor = CutTensor(
        name=read.take("name", _name),
        codec=read.take("codec", _one_of(*sorted(CODECS)), "raw"),
        compression=read.take("compression", _one_of(*sorted(COMPRESSIONS)), "none"),
        low=read.take("low", _or_null(_number), None),
        high=read.take("high", _or_null(_number), None),
    )
    read.done()
    if (tensor.low is None) != (tensor.high is None):
        raise BundleError(f"manifest.json: {where} must give both low and high, or neither.")
    if tensor.low is not None and tensor.high is not None and tensor.low >= tensor.high:
        raise BundleError(f"manifest.json: {where}.low must be below high.")
    return tensor


def _cut(value: object, where: str) -> tuple[CutTensor, ...]:
    read = _Reader(value, where)
    tensors = read.take("tensors", _list_of(_cut_tensor))
    read.done()
    return tensors


def _exit(value: object, where: str) -> Exit:
    read = _Reader(value, where)
    leave = Exit(
        stage=read.take("stage", _count),
        logits=read.take("logits", _name),
        temperature=read.take("temperature", _number, 1.0),
    )
    read.done()
    if leave.temperature <= 0:
        raise _bad(f"{where}.temperature", "a number above 0", leave.temperature)
    return leave


def _point(value: object, where: str, name: str) -> OperatingPoint:
    read = _Reader(value, where)
    point = OperatingPoint(
        name=name,
        criterion=read.take("criterion", _one_of(*sorted(CRITERIA))),
        thresholds=read.take("thresholds", _list_of(_threshold)),
        measured=read.take("measured", _or_null(_free), None),
        guarantee=read.take("guarantee", _or_null(_free), None),
        configuration=read.take("configuration", _or_null(_free), None),
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
    read = _Reader(document, "")
    version = read.take("format_version", _count)
    if version > FORMAT_VERSION:
        raise BundleError(
            f"manifest.json has format version {version}. This offramp reads up to {FORMAT_VERSION}: update it."
        )
    name = read.take("name", _name)
    source = _Reader(read.take("input", _free), "input")
    manifest = Manifest(
        name=name,
        inputs=source.take("tensors", _list_of(_name)),
        image=source.take("image", _or_null(_image), None),
        classes=read.take("classes", _list_of(_text)),
        tensors=read.take("tensors", _named(_tensor)),
        buckets=read.take("buckets", _map_of(_list_of(_positive)), {}),
        stages=read.take("stages", _list_of(_stage)),
        cuts=read.take("cuts", _list_of(_cut)),
        exits=read.take("exits", _list_of(_exit)),
        operating_points=read.take("operating_points", _named(_point)),
        provenance=read.take("provenance", _free, {}),
    )
    source.done()
    read.done()
    check_graph(manifest)
    check_exits(manifest)
    check_points(manifest)
    return manifest
