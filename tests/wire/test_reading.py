"""Requests read by hand are what protobuf reads, or are left to it."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from common.manifest import CutTensor
from common.types import Answer, Degraded, Hop, Purpose, Request, Rows
from common.wire.frames import reply_bytes, up_bytes
from common.wire.messages import answer_to_wire
from common.wire.reading import read_request
from protos import tier_pb2 as pb

text = st.text(max_size=200)
uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
floats = st.lists(st.floats(width=32, allow_nan=False), max_size=3)
tensors = st.builds(
    pb.Tensor,
    name=text,
    dtype=st.sampled_from(pb.DType.values()),
    shape=st.lists(uint32, max_size=4),
    codec=st.sampled_from(pb.Codec.values()),
    compression=st.sampled_from(pb.Compression.values()),
    scale=floats,
    offset=floats,
    data=st.binary(max_size=300),
)
requests = st.builds(
    pb.InferRequest,
    request_id=text,
    bundle=text,
    start_stage=uint32,
    operating_point=text,
    thresholds=st.lists(st.floats(allow_nan=False), max_size=4),
    time_left_us=uint64,
    purpose=st.sampled_from(pb.Purpose.values()),
    want_probabilities=st.booleans(),
    traceparent=text,
    row_ids=st.lists(uint64, max_size=4),
    tensors=st.lists(tensors, max_size=3),
    state=st.lists(tensors, max_size=2),
    observation=st.sampled_from(["", "", "", "seen"]),
)
SCALARS = (
    "request_id",
    "bundle",
    "start_stage",
    "operating_point",
    "time_left_us",
    "purpose",
    "want_probabilities",
    "traceparent",
)


def same(data: bytes, message: pb.InferRequest) -> bool:
    """Whether a request was read, and then as protobuf reads it."""
    read = read_request(data)
    if read is None:
        return False
    for field in SCALARS:
        assert getattr(read, field) == getattr(message, field)
    assert list(read.thresholds) == list(message.thresholds)
    assert list(read.row_ids) == list(message.row_ids)
    for found, expected in ((read.tensors, message.tensors), (read.state, message.state)):
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours.name, ours.dtype, ours.codec, ours.compression) == (
                theirs.name,
                theirs.dtype,
                theirs.codec,
                theirs.compression,
            )
            assert [list(ours.shape), list(ours.scale), list(ours.offset)] == [
                list(theirs.shape),
                list(theirs.scale),
                list(theirs.offset),
            ]
            assert bytes(ours.data) == theirs.data
    return True


@given(requests)
def test_what_protobuf_writes(message: pb.InferRequest) -> None:
    assert same(pb.Up(request=message).SerializeToString(), message) == (not message.observation)


@given(requests, st.data())
def test_a_damaged_message_is_read_as_protobuf_reads_it_or_not_at_all(
    message: pb.InferRequest, data: st.DataObject
) -> None:
    damaged = bytearray(pb.Up(request=message).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged
    if read_request(damaged) is not None:
        up = pb.Up.FromString(bytes(damaged))
        read = read_request(damaged)
        assert read is not None and read.request_id == up.request.request_id
        if not np.isnan(
            [
                *up.request.thresholds,
                *(x for t in (*up.request.tensors, *up.request.state) for x in (*t.scale, *t.offset)),
            ]
        ).any():
            same(bytes(damaged), up.request)


def test_a_number_that_reaches_beyond_its_tensor_is_left_to_protobuf() -> None:
    dtype, purpose = b"\x10", b"\x38\x01"
    for tensors in (b"\x5a", b"\x62"):
        request = tensors + b"\x01" + dtype + purpose
        data = b"\x0a" + bytes((len(request),)) + request
        with pytest.raises(DecodeError):
            pb.Up.FromString(data)
        assert read_request(data) is None


def test_other_messages_are_left_to_protobuf() -> None:
    for up in (pb.Up(), pb.Up(ping=pb.Ping(id=3)), pb.Up(cancel=pb.Cancel(request_id="r"))):
        assert read_request(up.SerializeToString()) is None


@given(
    name=st.text(max_size=40),
    point=st.text(max_size=20),
    width=st.integers(1, 70_000),
    purpose=st.sampled_from(list(Purpose)),
    rows=st.integers(1, 3),
)
def test_the_first_tensor_lies_aligned_where_it_is_large(
    name: str, point: str, width: int, purpose: Purpose, rows: int
) -> None:
    array = np.zeros((rows, width), np.float32)
    request = Request(
        request_id=name, rows=Rows(ids=tuple(range(rows)), tensors={"h": array}), bundle="sha256:ab",
        operating_point=point, purpose=purpose,
    )  # fmt: skip
    data = up_bytes(request, (CutTensor(name="h"),))
    message = pb.Up.FromString(data).request
    assert same(data, message)
    assert (message.request_id, message.operating_point) == (name, point)
    assert message.purpose == pb.Purpose.Value(f"PURPOSE_{purpose.name}")
    read = read_request(data)
    assert read is not None
    offset = np.frombuffer(read.tensors[0].data, np.uint8).ctypes.data - np.frombuffer(data, np.uint8).ctypes.data
    near = any(abs(len(data) - 2**power) < 32 for power in (7, 14, 21))  # where the length's own length depends on it
    small = array.nbytes < 1024
    assert offset % 16 == 0 or near or small


def test_nothing_is_added_to_a_small_request() -> None:
    sizes = [
        len(up_bytes(Request(
            request_id="r" * length, rows=Rows(ids=(0,), tensors={"h": np.zeros((1, 50), np.uint8)}),
            bundle="sha256:ab", operating_point="full",
        ), (CutTensor(name="h"),)))
        for length in range(1, 20)
    ]  # fmt: skip
    assert sizes == list(range(sizes[0], sizes[0] + 19))


answers = st.builds(
    Answer,
    row=uint64,
    label=uint32,
    confidence=st.floats(0, 1, width=32),
    exit=uint32,
    tier=text,
    degraded=st.sampled_from([None, *Degraded]),
    hops=st.lists(st.builds(Hop, tier=text, queue_ms=st.floats(0, 1e6), compute_ms=st.floats(0, 1e6)), max_size=3).map(
        tuple
    ),
    probabilities=st.one_of(st.none(), st.lists(st.floats(0, 1, width=32), min_size=1, max_size=3).map(tuple)),
)


@given(text, st.lists(answers, max_size=3), st.booleans(), uint64)
def test_a_reply_is_what_protobuf_would_write(name: str, given: list[Answer], last: bool, elapsed: int) -> None:
    reply = pb.InferReply(
        request_id=name, answers=[answer_to_wire(each) for each in given], last=last, elapsed_us=elapsed
    )
    data = reply_bytes(name, given, last=last, elapsed_us=elapsed)
    assert pb.Down.FromString(data) == pb.Down(reply=reply)
