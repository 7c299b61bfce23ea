import gc
import math
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from common.bundle import Bundle
from common.errors import TooLarge
from common.limits import Limits
from common.serving.bounds import bounds
from common.serving.json_body import JsonBody
from common.wire.channels import INFER
from protos import tier_pb2 as pb
from protos import tier_pb2_grpc
from tests.networks import write_skip
from tests.serving.chains import make_tier
from tests.serving.sockets import served


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_skip(tmp_path)[0]


def test_the_bundle_says_what_is_possible(bundle: Bundle) -> None:
    found = bounds(bundle.manifest, Limits(batch_rows=100))
    assert found.json_values == 100 * 6 + 1024 and found.json_lists == 100 * 2 + 1024
    assert found.message_bytes == 100 * 2 * 6 * 4 + 100 * 16 + (1 << 20)
    tensors = dict(bundle.manifest.tensors) | {"x": replace(bundle.manifest.tensors["x"], shape=("tokens",))}
    open_end = replace(bundle.manifest, tensors=tensors)
    assert bounds(open_end, Limits()).json_values == math.inf
    assert bounds(open_end, Limits()).message_bytes == Limits().max_message_bytes
    bucketed = replace(open_end, buckets={"tokens": (4, 8)})
    assert bounds(bucketed, Limits(batch_rows=100)).json_values == 100 * 8 + 1024


@pytest.mark.parametrize("small", ["[]", "{}", "0"])
def test_a_body_of_countless_small_things_is_refused_before_it_is_parsed(
    bundle: Bundle, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = JsonBody(bundle.manifest, Limits(batch_rows=100))
    monkeypatch.setattr(JsonBody, "_parse", lambda self, raw: pytest.fail("it was parsed"))
    with pytest.raises(TooLarge, match="The body holds about"):
        body.read(f'{{"inputs": [{",".join([small] * 40_000)}]}}'.encode())


def test_the_largest_batch_passes(bundle: Bundle) -> None:
    row = "[" + ",".join(["0.123456789012345"] * 6) + "]"
    body = f'{{"inputs": [{",".join([row] * 1000)}]}}'.encode()
    assert len(body) > 64 << 10
    assert len(JsonBody(bundle.manifest, Limits(batch_rows=1000)).read(body)[0]["x"]) == 1000


def messages_held() -> int:
    return sum(type(thing) is pb.InferRequest for thing in gc.get_objects())


@pytest.mark.parametrize(
    "message",
    [
        pb.InferRequest(row_ids=range(5000)),
        pb.InferRequest(tensors=[pb.Tensor()] * 300),
        pb.InferRequest(state=[pb.Tensor()] * 300),
        pb.InferRequest(thresholds=[0.5] * 300),
        pb.InferRequest(observation="o"),
        pb.InferRequest(view=1),
    ],
)
async def test_counts_are_looked_at_first_and_nothing_is_kept(bundle: Bundle, message: pb.InferRequest) -> None:
    async with (
        served(make_tier(bundle, 0, 4)) as (_, address),
        grpc.aio.insecure_channel(str(address)) as channel,
    ):
        stub = tier_pb2_grpc.TierStub(channel)
        gc.collect()
        before = messages_held()
        gc.disable()
        try:
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.Infer(message)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                del caught
            assert messages_held() <= before, "freed without a collection"
        finally:
            gc.enable()


async def test_a_message_beyond_what_the_bundle_needs(bundle: Bundle) -> None:
    async with served(make_tier(bundle, 0, 4)) as (_, address), grpc.aio.insecure_channel(str(address)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(INFER, None, None)(b"\0" * (3 << 20))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
