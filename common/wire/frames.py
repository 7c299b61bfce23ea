"""Serialised requests with one copy of each tensor.

protobuf copies a large `bytes` field several times on its way into a message and out again. Here the small
header is serialised by protobuf and joined with the tensors' own buffers by hand; the result is an ordinary
`offramp.v1` message that any other client could have sent (fields may come in any order).
"""

from __future__ import annotations

from collections.abc import Sequence

from common.manifest import CutTensor
from common.types import Request
from common.wire.codecs import Buffer, Coded, encode
from common.wire.messages import header_to_wire, tensor_header
from protos import tier_pb2 as pb

_LENGTH_DELIMITED = 2


def _tag(message: object, field: str) -> bytes:
    number: int = message.DESCRIPTOR.fields_by_name[field].number  # type: ignore[attr-defined]
    return _varint(number << 3 | _LENGTH_DELIMITED)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_UP_REQUEST = _tag(pb.Up, "request")
_TENSORS = _tag(pb.InferRequest, "tensors")
_STATE = _tag(pb.InferRequest, "state")
_DATA = _tag(pb.Tensor, "data")


def request_parts(request: Request, cut: Sequence[CutTensor]) -> list[Buffer]:
    """An `InferRequest` as buffers to be joined.

    Args:
        request: rows with the tensors that cross `cut`.
        cut: how they are coded; a tensor that it does not name travels raw.
    """
    how = {tensor.name: tensor for tensor in cut}
    parts: list[Buffer] = [header_to_wire(request).SerializeToString()]
    for name, array in request.rows.tensors.items():
        _append(parts, _TENSORS, encode(array, how.get(name) or CutTensor(name=name)))
    for name, array in request.rows.state.items():
        _append(parts, _STATE, encode(array, CutTensor(name=name)))
    return parts


def request_bytes(request: Request, cut: Sequence[CutTensor]) -> bytes:
    """A serialised `InferRequest`."""
    return b"".join(request_parts(request, cut))


def up_bytes(request: Request, cut: Sequence[CutTensor]) -> bytes:
    """A serialised `Up` that holds the request."""
    parts = request_parts(request, cut)
    return b"".join([_UP_REQUEST, _varint(sum(map(len, parts))), *parts])


def _append(parts: list[Buffer], tag: bytes, coded: Coded) -> None:
    header = tensor_header(coded).SerializeToString()
    size = _varint(len(coded.data))
    parts += [tag, _varint(len(header) + len(_DATA) + len(size) + len(coded.data)), header, _DATA, size, coded.data]
