import asyncio
from collections.abc import Sequence
from pathlib import Path

import grpc

from common.errors import RequestError, Unavailable
from common.limits import Limits
from common.serving.metrics import Metrics
from common.serving.unary import SILENT_CALLS, UnaryLink
from common.types import Answer, Degraded, Request
from common.wire.channels import SERVICE
from protos import tier_pb2 as pb
from tests.networks import write_skip
from tests.serving.chains import Scripted, ask, inputs, make_request, make_tier
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


class Noting:
    """A call that notes how it ended."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.errors: list[RequestError | None] = []

    def answered(self, answers: Sequence[Answer]) -> None:
        raise AssertionError("nobody could have answered")

    def ended(self, error: RequestError | None) -> None:
        self.errors.append(error)


async def test_calls_end_with_their_link(tmp_path: Path) -> None:
    """A name that moves closes the link to the old address: what is in flight there goes elsewhere at once."""
    bundle, _ = write_skip(tmp_path)

    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    async with served(make_tier(bundle, 1, 2, name="edge", upstream=Scripted(hang))) as (_, address):
        link = UnaryLink(str(address), bundle=bundle, limits=Limits(), metrics=Metrics("device"))
        await until(lambda: link.up)
        call = Noting(make_request(bundle, inputs(1), point="full"))
        link.send(call)
        await until(lambda: link.rows_in_flight == 1)
        await link.close()
        (error,) = call.errors
        assert isinstance(error, Unavailable) and link.rows_in_flight == 0
