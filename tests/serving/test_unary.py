import asyncio
from pathlib import Path

import grpc

from common.serving.unary import SILENT_CALLS
from common.types import Degraded
from common.wire.channels import SERVICE
from protos import tier_pb2 as pb
from tests.networks import write_skip
from tests.serving.chains import ask, inputs, make_request, make_tier
from tests.serving.sockets import calling, local, served, until


async def test_a_silent_upstream_counts_as_down_until_it_speaks(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    frozen = False

    async def infer(data: bytes, context: object) -> bytes:
        await asyncio.sleep(60)
        return b""

    async def describe(data: bytes, context: object) -> bytes:
        if frozen:
            await asyncio.sleep(60)
        return pb.DescribeReply(bundle=bundle.digest).SerializeToString()

    server = grpc.aio.server()
    methods = {"Infer": infer, "Describe": describe}
    handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with calling(bundle, 0, 1, [local(port)], unary=True, timeout_s=0.1) as (tier, pool):
            await until(pool.up)
            frozen = True
            for _ in range(SILENT_CALLS):
                answers = await ask(tier, make_request(bundle, inputs(2), point="full"))
                assert {a.degraded for a in answers} == {Degraded.DEADLINE}
            await until(lambda: not pool.up())
            answers = await ask(tier, make_request(bundle, inputs(2), point="full"))
            assert {a.degraded for a in answers} == {Degraded.UPSTREAM_UNAVAILABLE}
            frozen = False
            await until(pool.up)
    finally:
        await server.stop(None)


async def test_a_refusal_is_no_failure_of_the_network(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    async with (
        served(make_tier(bundle, 1, 4, name="cloud")) as (door, address),
        calling(bundle, 0, 1, [address], unary=True) as (tier, pool),
    ):
        await until(pool.up)
        door.servicer.draining = True
        answers = await ask(tier, make_request(bundle, inputs(2), point="full"))
        assert {a.degraded for a in answers} == {Degraded.UPSTREAM_UNAVAILABLE}
        assert pool.up()
