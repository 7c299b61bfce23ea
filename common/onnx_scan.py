"""Find references to external data in an ONNX file, without the onnx package.

An ONNX file may name other files that hold its weights; such files would escape the bundle's hashes. The
scan walks the protobuf wire format along the few fields that can hold a tensor (numbers from onnx.proto).
"""

from __future__ import annotations

from collections.abc import Iterator

from common.errors import BundleError

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _SPARSE, _FUNCTION, _TENSOR = range(7)
_CHILDREN = {  # message -> field number -> message of that field
    _MODEL: {7: _GRAPH, 20: _MODEL, 25: _FUNCTION},  # 20: training info, whose graphs sit at 1 and 2
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
}
_TRAINING_CHILDREN = {1: _GRAPH, 2: _GRAPH}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MAX_DEPTH = 64


def _varint(buffer: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def _fields(buffer: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Field number, value of a varint (else 0), and bytes of a length-delimited field (else empty)."""
    at, end, empty = 0, len(buffer), memoryview(b"")
    while at < end:
        key, at = _varint(buffer, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(buffer, at)
            yield number, value, empty
        elif wire == 2:
            size, at = _varint(buffer, at)
            if size > end - at:
                raise ValueError("field beyond the end")
            yield number, 0, buffer[at : at + size]
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")


def _has_external(buffer: memoryview, kind: int, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    for number, value, content in _fields(buffer):
        if kind == _TENSOR:
            if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                return True
        elif kind == _MODEL and number == 20:
            for inner, _, graph in _fields(content):
                if inner in _TRAINING_CHILDREN and _has_external(graph, _GRAPH, depth + 1):
                    return True
        else:
            child = _CHILDREN[kind].get(number)
            if child is not None and _has_external(content, child, depth + 1):
                return True
    return False


def refuse_external_data(model: bytes, file: str) -> None:
    """Raise BundleError when an ONNX model refers to data outside itself, or is no ONNX file at all."""
    try:
        external = _has_external(memoryview(model), _MODEL, 0)
    except (ValueError, IndexError):
        raise BundleError(f"{file} is not an ONNX file.") from None
    if external:
        raise BundleError(f"{file} refers to external data. A stage must hold its weights in its own file.")
