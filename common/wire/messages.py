"""Between offramp's own types and the protobuf messages of protos/tier.proto. The only place that knows both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from common.errors import Malformed, TooLarge
from common.limits import Limits
from common.manifest import CODECS, COMPRESSIONS, DTYPES
from common.types import NEVER, Answer, Array, Deadline, Degraded, Hop, Purpose, Request, Rows, Tensors
from common.wire.codecs import NO_RANGE, Coded, decode
from common.wire.reading import RequestRead, TensorRead
from protos import tier_pb2 as pb

# The stubs type enum fields more narrowly than what Value returns.
_DTYPE_TO_WIRE: dict[str, Any] = {name: pb.DType.Value(f"DTYPE_{name.upper()}") for name in DTYPES}
_DTYPE_FROM_WIRE = {number: name for name, number in _DTYPE_TO_WIRE.items()}
_CODEC_TO_WIRE: dict[str, Any] = {name: pb.Codec.Value(f"CODEC_{name.upper()}") for name in CODECS}
_CODEC_FROM_WIRE = {number: name for name, number in _CODEC_TO_WIRE.items()}
_COMPRESSION_TO_WIRE: dict[str, Any] = {
    name: pb.Compression.Value(f"COMPRESSION_{name.upper()}") for name in COMPRESSIONS
}
_COMPRESSION_FROM_WIRE = {number: name for name, number in _COMPRESSION_TO_WIRE.items()}
assert set(_CODEC_FROM_WIRE) == set(pb.Codec.values()), "every codec of the proto is known here"
assert set(_COMPRESSION_FROM_WIRE) == set(pb.Compression.values()), "and every compression"
PURPOSE_TO_WIRE: dict[Purpose, Any] = {purpose: pb.Purpose.Value(f"PURPOSE_{purpose.name}") for purpose in Purpose}
_PURPOSE_FROM_WIRE = {number: purpose for purpose, number in PURPOSE_TO_WIRE.items()}
DEGRADED_TO_WIRE: dict[Degraded | None, Any] = {None: pb.DEGRADED_NONE} | {
    d: pb.Degraded.Value(f"DEGRADED_{d.name}") for d in Degraded
}
_PROBE, _REJECTED = Purpose.PROBE, Degraded.UPSTREAM_REJECTED  # looking them up takes longer than the rest of a row
_DEGRADED_FROM_WIRE = {number: reason for reason, number in DEGRADED_TO_WIRE.items()}

_MAX_RANK = 16
_MOST = 256  # tensors, states or thresholds of one request


def tensor_header(coded: Coded) -> pb.Tensor:
    """A coded tensor's message without its data."""
    message = pb.Tensor(
        name=coded.name,
        dtype=_DTYPE_TO_WIRE[coded.dtype],
        shape=coded.shape,
        codec=_CODEC_TO_WIRE[coded.codec],
        compression=_COMPRESSION_TO_WIRE[coded.compression],
    )
    if len(coded.scale):
        message.scale.extend(coded.scale.tolist())
        message.offset.extend(coded.offset.tolist())
    return message


def tensor_from_wire(message: pb.Tensor | TensorRead, *, max_bytes: int) -> Array:
    """Decode a tensor from the wire; raises Malformed."""
    name = message.name
    try:
        dtype = _DTYPE_FROM_WIRE[message.dtype]
        codec = _CODEC_FROM_WIRE[message.codec]
        compression = _COMPRESSION_FROM_WIRE[message.compression]
    except KeyError:
        raise Malformed(
            f"tensor {name!r} has dtype {message.dtype}, codec {message.codec}, compression {message.compression}. "
            "All three must be values of offramp.v1.",
            "bad_dtype",
        ) from None
    if len(message.shape) > _MAX_RANK:
        raise Malformed(
            f"tensor {name!r} has {len(message.shape)} axes. At most {_MAX_RANK} are accepted.", "bad_shape"
        )
    coded = Coded(
        name=name,
        dtype=dtype,
        shape=tuple(message.shape),
        codec=codec,
        compression=compression,
        scale=np.array(message.scale, np.float32) if message.scale else NO_RANGE,
        offset=np.array(message.offset, np.float32) if message.offset else NO_RANGE,
        data=message.data,
    )
    return decode(coded, max_bytes=max_bytes)


def request_from_wire(message: pb.InferRequest | RequestRead, limits: Limits) -> Request:
    """Decode a request; raises Malformed. What the tensors must look like is for admission to say."""
    for what, found, most in (
        ("row_ids", len(message.row_ids), limits.batch_rows),
        ("thresholds", len(message.thresholds), _MOST),
        ("tensors", len(message.tensors), _MOST),
        ("state", len(message.state), _MOST),
    ):
        if found > most:
            raise TooLarge(f"{what} holds {found} entries. At most {most} are accepted.", "too_large")
    if message.observation or message.view:
        raise Malformed("observation and view are reserved. They must stay unset.", "reserved")
    return Request(
        request_id=message.request_id,
        rows=Rows(
            ids=tuple(message.row_ids),
            tensors=_named(message.tensors, "tensors", limits.max_message_bytes),
            state=_named(message.state, "state", limits.max_message_bytes),
        ),
        bundle=message.bundle,
        operating_point=message.operating_point,
        start_stage=message.start_stage,
        thresholds=tuple(message.thresholds),
        deadline=Deadline.after(message.time_left_us / 1e6) if message.time_left_us else NEVER,
        want_probabilities=message.want_probabilities,
        purpose=_PURPOSE_FROM_WIRE.get(message.purpose, _PROBE),
        traceparent=message.traceparent,
    )


def _named(messages: Iterable[pb.Tensor | TensorRead], field: str, max_bytes: int) -> Tensors:
    result: Tensors = {}
    for message in messages:
        if message.name in result:
            raise Malformed(f"{field} holds {message.name!r} twice.", "bad_shape")
        result[message.name] = tensor_from_wire(message, max_bytes=max_bytes)
        max_bytes -= result[message.name].nbytes
    return result


def answer_to_wire(answer: Answer) -> pb.Answer:
    """An answer as it travels downstream."""
    return pb.Answer(
        row_id=answer.row,
        label=answer.label,
        confidence=answer.confidence,
        exit=answer.exit,
        tier=answer.tier,
        degraded=DEGRADED_TO_WIRE[answer.degraded],
        hops=[
            pb.Hop(
                tier=hop.tier,
                queue_us=int(hop.queue_ms * 1e3),
                compute_us=int(hop.compute_ms * 1e3),
                network_us=int(hop.network_ms * 1e3),
            )
            for hop in answer.hops
        ],
        probabilities=answer.probabilities or (),
    )


def answer_from_wire(message: pb.Answer, network_ms: float | None = None) -> Answer:
    """An answer as upstream gave it; with `network_ms`, the time on the way there and back, in its first hop."""
    hops = [
        Hop(
            tier=hop.tier,
            queue_ms=hop.queue_us / 1e3,
            compute_ms=hop.compute_us / 1e3,
            network_ms=hop.network_us / 1e3 if at or network_ms is None else network_ms,
        )
        for at, hop in enumerate(message.hops)
    ]
    return Answer(
        row=message.row_id,
        label=message.label,
        confidence=message.confidence,
        exit=message.exit,
        tier=message.tier,
        degraded=_DEGRADED_FROM_WIRE.get(message.degraded, _REJECTED),
        hops=tuple(hops),
        probabilities=tuple(message.probabilities) or None,
    )
