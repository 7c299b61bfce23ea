import numpy as np
import pytest

from common.errors import Malformed
from common.limits import Limits
from common.manifest import CutTensor
from common.types import Answer, Deadline, Degraded, Hop, Purpose, Request, Rows
from common.wire.frames import request_bytes, up_bytes
from common.wire.messages import answer_from_wire, answer_to_wire, request_from_wire
from protos import tier_pb2 as pb

LIMITS = Limits()
REQUEST = Request(
    request_id="r1",
    rows=Rows(
        ids=(7, 2**63),
        tensors={"h": np.arange(6, dtype=np.float32).reshape(2, 3), "mask": np.array([[True], [False]])},
        state={"count": np.array([1, 2], np.int32)},
    ),
    bundle="sha256:ab",
    operating_point="default",
    start_stage=1,
    thresholds=(float("nan"), 0.3, 0.0),
    deadline=Deadline.after(3600.0),
    want_probabilities=True,
    purpose=Purpose.AUDIT,
    traceparent="00-1-2-01",
)


@pytest.mark.parametrize("cut", [(), (CutTensor(name="h", codec="u8", compression="zstd", low=0.0, high=5.0),)])
def test_a_request_arrives_as_it_left(cut: tuple[CutTensor, ...]) -> None:
    wire = pb.InferRequest.FromString(request_bytes(REQUEST, cut))
    assert pb.Up.FromString(up_bytes(REQUEST, cut)).request.tensors == wire.tensors
    back = request_from_wire(wire, LIMITS)
    for field in (
        "request_id",
        "bundle",
        "operating_point",
        "start_stage",
        "want_probabilities",
        "purpose",
        "traceparent",
    ):
        assert getattr(back, field) == getattr(REQUEST, field)
    assert np.array_equal(back.thresholds, REQUEST.thresholds, equal_nan=True)
    assert back.rows.ids == REQUEST.rows.ids
    assert back.rows.tensors.keys() == REQUEST.rows.tensors.keys()
    assert np.allclose(back.rows.tensors["h"], REQUEST.rows.tensors["h"], atol=0.01)
    assert back.rows.tensors["mask"].dtype == bool
    assert np.array_equal(back.rows.state["count"], [1, 2])
    assert abs(back.deadline.left() - REQUEST.deadline.left()) < 60


def test_an_answer_arrives_as_it_left() -> None:
    answer = Answer(
        row=3, label=9, confidence=0.5, exit=2, tier="cloud", degraded=Degraded.DEADLINE,
        hops=(Hop(tier="edge", queue_ms=1.5, compute_ms=0.25, network_ms=2.0),), probabilities=(0.25, 0.75),
    )  # fmt: skip
    assert answer_from_wire(pb.Answer.FromString(answer_to_wire(answer).SerializeToString())) == answer


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (pb.Tensor(name="t", shape=[1], data=b"1234"), "values of offramp.v1"),
        (pb.Tensor(name="t", dtype=pb.DTYPE_FLOAT32, shape=[1] * 20, data=b"1234"), "At most 16"),
        (
            pb.Tensor(name="t", dtype=pb.DTYPE_FLOAT32, codec=pb.CODEC_U8, shape=[1], data=b"1"),
            "one scale and one offset",
        ),
        (
            pb.Tensor(name="t", dtype=pb.DTYPE_INT32, codec=pb.CODEC_U8, scale=[1], offset=[0], shape=[1], data=b"1"),
            "must be a float tensor",
        ),
        (
            pb.Tensor(
                name="t",
                dtype=pb.DTYPE_FLOAT32,
                codec=pb.CODEC_U8,
                scale=[float("nan")],
                offset=[0],
                shape=[1],
                data=b"1",
            ),
            "not finite",
        ),
        (pb.Tensor(name="t", dtype=99, shape=[1], data=b"1234"), "values of offramp.v1"),
    ],
)
def test_tensors_that_no_tier_sends(tensor: pb.Tensor, sentence: str) -> None:
    with pytest.raises(Malformed, match=sentence):
        request_from_wire(pb.InferRequest(tensors=[tensor]), LIMITS)


def test_a_name_twice_and_a_sum_over_the_limit() -> None:
    tensor = pb.Tensor(name="t", dtype=pb.DTYPE_UINT8, shape=[4], data=b"1234")
    with pytest.raises(Malformed, match="'t' twice"):
        request_from_wire(pb.InferRequest(tensors=[tensor, tensor]), LIMITS)
    other = pb.Tensor(name="u", dtype=pb.DTYPE_UINT8, shape=[4], data=b"1234")
    with pytest.raises(Malformed, match="At most 2"):
        request_from_wire(pb.InferRequest(tensors=[tensor, other]), Limits(max_message_bytes=6))
