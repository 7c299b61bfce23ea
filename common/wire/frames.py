"""Serialised messages with one copy of each tensor.

protobuf copies a large `bytes` field several times on its way into a message and out again, and building a small
message of many fields takes it several times as long as joining bytes that mostly are the same as last time. The
result is an ordinary `offramp.v1` message that any other client could have sent (fields may come in any order).

A large tensor's data is placed so that it lies aligned in memory when the message does: upstream then computes on what
it has received, without a copy. Repeating a field fills the gap, as the last value of a field is the one that counts.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from common.manifest import CutTensor
from common.types import Answer, Degraded, Hop, Purpose, Request
from common.wire.codecs import Buffer, Coded, encode
from common.wire.messages import DEGRADED_TO_WIRE, PURPOSE_TO_WIRE, tensor_header
from protos import tier_pb2 as pb

_VARINT, _FIXED32, _LENGTH_DELIMITED = 0, 5, 2
_ALIGNED = 16  # bytes; what memory allocators keep to
_WORTH_IT = 1024  # bytes of data; copying fewer costs less than the gap on a slow link


def _tag(message: object, field: str, wire_type: int = _LENGTH_DELIMITED) -> bytes:
    number: int = message.DESCRIPTOR.fields_by_name[field].number  # type: ignore[attr-defined]
    return varint(number << 3 | wire_type)


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    if value < 0x80:
        return _SMALL[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL = [bytes((value,)) for value in range(0x80)]

_UP_REQUEST = _tag(pb.Up, "request")
_ID = _tag(pb.InferRequest, "request_id")
_TIME_LEFT = _tag(pb.InferRequest, "time_left_us", _VARINT)
_PURPOSE = _tag(pb.InferRequest, "purpose", _VARINT)
_TRACEPARENT = _tag(pb.InferRequest, "traceparent")
_ROW_IDS = _tag(pb.InferRequest, "row_ids")
_TENSORS = _tag(pb.InferRequest, "tensors")
_STATE = _tag(pb.InferRequest, "state")
_DATA = _tag(pb.Tensor, "data")

_DOWN_REPLY = _tag(pb.Down, "reply")
_REPLY_ID = _tag(pb.InferReply, "request_id")
_REPLY_ANSWERS = _tag(pb.InferReply, "answers")
_REPLY_LAST = _tag(pb.InferReply, "last", _VARINT) + b"\x01"
_REPLY_ELAPSED = _tag(pb.InferReply, "elapsed_us", _VARINT)
_ROW = _tag(pb.Answer, "row_id", _VARINT)
_LABEL = _tag(pb.Answer, "label", _VARINT)
_CONFIDENCE = _tag(pb.Answer, "confidence", _FIXED32)
_HOPS = _tag(pb.Answer, "hops")
_PROBABILITIES = _tag(pb.Answer, "probabilities")
_QUEUE = _tag(pb.Hop, "queue_us", _VARINT)
_COMPUTE = _tag(pb.Hop, "compute_us", _VARINT)
_NETWORK = _tag(pb.Hop, "network_us", _VARINT)
_FLOAT = struct.Struct("<f")


def request_bytes(request: Request, cut: Sequence[CutTensor]) -> bytes:
    """A serialised `InferRequest`.

    Args:
        request: rows with the tensors that cross `cut`.
        cut: how they are coded; a tensor that it does not name travels raw.
    """
    tensors = _tensor_parts(request, cut)
    head = _head(request)
    return b"".join([head, _pad(request.purpose, len(head), tensors), *tensors])


def up_bytes(request: Request, cut: Sequence[CutTensor]) -> bytes:
    """A serialised `Up` that holds the request."""
    tensors = _tensor_parts(request, cut)
    head = _head(request)
    size = len(head) + sum(map(len, tensors))
    length = len(varint(size))
    pad = _pad(request.purpose, len(_UP_REQUEST) + length + len(head), tensors)
    if len(varint(size + len(pad))) > length:  # for a few sizes; now and then it comes out unaligned
        pad = _pad(request.purpose, len(_UP_REQUEST) + length + 1 + len(head), tensors)
    return b"".join([_UP_REQUEST, varint(size + len(pad)), head, pad, *tensors])


def reply_bytes(request_id: str, answers: Sequence[Answer], *, last: bool, elapsed_us: int) -> bytes:
    """A serialised `Down` that holds a reply."""
    name = request_id.encode()
    parts = [_REPLY_ID, varint(len(name)), name]
    for answer in answers:
        body = _answer(answer)
        parts += (_REPLY_ANSWERS, varint(len(body)), body)
    if last:
        parts.append(_REPLY_LAST)
    parts += (_REPLY_ELAPSED, varint(elapsed_us))
    body = b"".join(parts)
    return b"".join((_DOWN_REPLY, varint(len(body)), body))


def _answer(answer: Answer) -> bytes:
    parts = [
        _ROW, varint(answer.row), _LABEL, varint(answer.label), _CONFIDENCE, _FLOAT.pack(answer.confidence),
        _who(answer.exit, answer.tier, answer.degraded),
    ]  # fmt: skip
    for hop in answer.hops:
        body = _hop(hop)
        parts += (_HOPS, varint(len(body)), body)
    if answer.probabilities:
        count = len(answer.probabilities)
        parts += (_PROBABILITIES, varint(4 * count), struct.pack(f"<{count}f", *answer.probabilities))
    return b"".join(parts)


def _hop(hop: Hop) -> bytes:
    return b"".join(
        (
            _hop_tier(hop.tier),
            _QUEUE,
            varint(int(hop.queue_ms * 1e3)),
            _COMPUTE,
            varint(int(hop.compute_ms * 1e3)),
            _NETWORK,
            varint(int(hop.network_ms * 1e3)),
        )
    )


@lru_cache(maxsize=256)
def _who(exit: int, tier: str, degraded: Degraded | None) -> bytes:
    return pb.Answer(exit=exit, tier=tier, degraded=DEGRADED_TO_WIRE[degraded]).SerializeToString()


@lru_cache(maxsize=256)
def _hop_tier(tier: str) -> bytes:
    return pb.Hop(tier=tier).SerializeToString()


def _head(request: Request) -> bytes:
    """The request without its tensors."""
    name = request.request_id.encode()
    left = request.deadline.left()
    ids = b"".join(map(varint, request.rows.ids))
    parts = [
        _kind(
            request.bundle, request.start_stage, request.operating_point, request.thresholds, request.purpose,
            request.want_probabilities,
        ),
        _ID, varint(len(name)), name, _ROW_IDS, varint(len(ids)), ids,
    ]  # fmt: skip
    if left != float("inf"):
        parts += (_TIME_LEFT, varint(max(int(left * 1e6), 1)))
    if request.traceparent:
        trace = request.traceparent.encode()
        parts += (_TRACEPARENT, varint(len(trace)), trace)
    return b"".join(parts)


@lru_cache(maxsize=256)
def _kind(
    bundle: str, start_stage: int, point: str, thresholds: tuple[float, ...], purpose: Purpose, probabilities: bool
) -> bytes:
    """What requests of one kind have in common."""
    return pb.InferRequest(
        bundle=bundle,
        start_stage=start_stage,
        operating_point=point,
        thresholds=thresholds,
        purpose=PURPOSE_TO_WIRE[purpose],
        want_probabilities=probabilities,
    ).SerializeToString()


def _pad(purpose: Purpose, before: int, tensors: Sequence[Buffer]) -> bytes:
    """What must follow `before` bytes so that the first tensor's data is aligned in the message."""
    if not tensors or len(tensors[1]) < _WORTH_IT:
        return b""
    return _gap(purpose, -(before + len(tensors[0])) % _ALIGNED)


@lru_cache(maxsize=256)
def _gap(purpose: Purpose, size: int) -> bytes:
    """So many bytes, or 17 for 1, that say the purpose again; three of them with a number longer than it need be."""
    value = PURPOSE_TO_WIRE[purpose]
    two, three = _PURPOSE + bytes((value,)), _PURPOSE + bytes((value | 0x80, 0))
    if size % 2 == 0:
        return two * (size // 2)
    return three + two * ((size - 3) % _ALIGNED // 2)


def _tensor_parts(request: Request, cut: Sequence[CutTensor]) -> list[Buffer]:
    """Tensors and state as buffers to be joined: what is before its data, and the data, of each."""
    how = {tensor.name: tensor for tensor in cut}
    parts: list[Buffer] = []
    for name, array in request.rows.tensors.items():
        _append(parts, _TENSORS, encode(array, how.get(name) or CutTensor(name=name)))
    for name, array in request.rows.state.items():
        _append(parts, _STATE, encode(array, CutTensor(name=name)))
    return parts


def _append(parts: list[Buffer], tag: bytes, coded: Coded) -> None:
    if len(coded.scale):
        header = tensor_header(coded).SerializeToString()
    else:
        header = _plain_header(coded.name, coded.dtype, coded.shape, coded.codec, coded.compression)
    size = varint(len(coded.data))
    length = varint(len(header) + len(_DATA) + len(size) + len(coded.data))
    parts += (b"".join((tag, length, header, _DATA, size)), coded.data)


@lru_cache(maxsize=1024)
def _plain_header(name: str, dtype: str, shape: tuple[int, ...], codec: str, compression: str) -> bytes:
    coded = Coded(name=name, dtype=dtype, shape=shape, codec=codec, compression=compression, data=b"")
    return tensor_header(coded).SerializeToString()
