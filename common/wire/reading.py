"""Requests as they come on a stream, read without protobuf's copies of the tensors.

A message of the common form becomes an object with the fields of `offramp.v1.InferRequest` whose tensors lie where
they arrived. Everything else (another kind of message, fields that are unknown or unusual, damage) is left to
protobuf, which knows the whole format and says what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

Data = bytes | bytearray

# Tags of one byte: number << 3 | wire type
_UP_REQUEST = 0x0A
_ID, _BUNDLE, _STAGE, _POINT, _THRESHOLDS, _LEFT = 0x0A, 0x12, 0x18, 0x22, 0x2A, 0x30
_PURPOSE, _PROBABILITIES, _TRACE, _ROWS, _TENSORS, _STATE = 0x38, 0x40, 0x4A, 0x52, 0x5A, 0x62
_NAME, _DTYPE, _SHAPE, _CODEC, _COMPRESSION, _SCALE, _OFFSET, _DATA = 0x0A, 0x10, 0x1A, 0x20, 0x28, 0x32, 0x3A, 0x7A
_VARINT, _LENGTH = 0, 2


class TensorRead:
    """The fields of `offramp.v1.Tensor`; `data` is a part of the message."""

    __slots__ = ("codec", "compression", "data", "dtype", "name", "offset", "scale", "shape")

    def __init__(self) -> None:
        self.name = ""
        self.dtype = self.codec = self.compression = 0
        self.shape: Sequence[int] = ()
        self.scale: Sequence[float] = ()
        self.offset: Sequence[float] = ()
        self.data: memoryview = _NOTHING


class RequestRead:
    """The fields of `offramp.v1.InferRequest`."""

    __slots__ = (
        "bundle",
        "observation",
        "operating_point",
        "purpose",
        "request_id",
        "row_ids",
        "start_stage",
        "state",
        "tensors",
        "thresholds",
        "time_left_us",
        "traceparent",
        "view",
        "want_probabilities",
    )

    def __init__(self) -> None:
        self.request_id = self.bundle = self.operating_point = self.traceparent = self.observation = ""
        self.start_stage = self.time_left_us = self.purpose = self.view = 0
        self.want_probabilities = False
        self.thresholds: Sequence[float] = ()
        self.row_ids: Sequence[int] = ()
        self.tensors: list[TensorRead] = []
        self.state: list[TensorRead] = []


def read_request(data: Data) -> RequestRead | None:
    """The request in a serialised `Up`, or None where protobuf should have a look."""
    try:
        if data[0] != _UP_REQUEST:
            return None
        size, at = _varint(data, 1)
        return _request(data, at) if at + size == len(data) else None
    except (IndexError, ValueError, struct.error):  # cut short, not UTF-8, or another type than the tag's
        return None


def _request(data: Data, at: int) -> RequestRead | None:
    request = RequestRead()
    view = memoryview(data)
    end = len(data)
    while at < end:
        tag = data[at]
        size, at = _varint(data, at + 1)
        if tag & 7 == _LENGTH:
            begin, at = at, at + size
            if at > end:
                return None
            if tag == _TENSORS or tag == _STATE:
                tensor = _tensor(data, view, begin, at)
                if tensor is None:
                    return None
                (request.tensors if tag == _TENSORS else request.state).append(tensor)
            elif tag == _ID:
                request.request_id = str(view[begin:at], "utf-8")
            elif tag == _ROWS:
                request.row_ids = _varints(data, begin, at, request.row_ids)
            elif tag == _BUNDLE:
                request.bundle = str(view[begin:at], "utf-8")
            elif tag == _POINT:
                request.operating_point = str(view[begin:at], "utf-8")
            elif tag == _TRACE:
                request.traceparent = str(view[begin:at], "utf-8")
            elif tag == _THRESHOLDS:
                request.thresholds = (*request.thresholds, *struct.unpack(f"<{size // 8}d", view[begin:at]))
            else:
                return None
        elif tag == _LEFT:
            request.time_left_us = size
        elif tag == _STAGE and size < 1 << 32:
            request.start_stage = size
        elif tag == _PURPOSE and size < 1 << 31:
            request.purpose = size
        elif tag == _PROBABILITIES:
            request.want_probabilities = size != 0
        else:
            return None
    return request


def _tensor(data: Data, view: memoryview, at: int, end: int) -> TensorRead | None:
    tensor = TensorRead()
    while at < end:
        tag = data[at]
        size, at = _varint(data, at + 1)
        if tag & 7 == _LENGTH:
            begin, at = at, at + size
            if at > end:
                return None
            if tag == _DATA:
                tensor.data = view[begin:at]
            elif tag == _NAME:
                tensor.name = str(view[begin:at], "utf-8")
            elif tag == _SHAPE:
                tensor.shape = _varints(data, begin, at, tensor.shape)
                if tensor.shape and max(tensor.shape) >= 1 << 32:
                    return None
            elif tag == _SCALE:
                tensor.scale = (*tensor.scale, *struct.unpack(f"<{size // 4}f", view[begin:at]))
            elif tag == _OFFSET:
                tensor.offset = (*tensor.offset, *struct.unpack(f"<{size // 4}f", view[begin:at]))
            else:
                return None
        elif size >= 1 << 31:
            return None
        elif tag == _DTYPE:
            tensor.dtype = size
        elif tag == _CODEC:
            tensor.codec = size
        elif tag == _COMPRESSION:
            tensor.compression = size
        else:
            return None
    return tensor if at == end else None  # else its last number reaches into what comes behind the tensor


def _varint(data: Data, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for shift in range(7, 64, 7):
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at + 1
    raise ValueError("no number of 64 bits")


def _varints(data: Data, at: int, end: int, before: Sequence[int]) -> Sequence[int]:
    """Packed numbers, behind those that came before."""
    if end - at == 1 and not before and data[at] < 0x80:
        return (data[at],)
    values = list(before)
    while at < end:
        value, at = _varint(data, at)
        values.append(value)
    if at != end:
        raise ValueError("a number that reaches beyond its field")
    return values


_NOTHING = memoryview(b"")
