"""Upstream behind gRPC's own server, which closes connections: because it stops, or because they grow old."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from common.bundle import Bundle
from common.serving.tier import Tier
from common.serving.tier_service import TierService
from common.serving.upstream import Deliver
from common.types import Request
from protos import tier_pb2 as pb
from tests.networks import write_skip
from tests.serving.chains import Scripted, ask, inputs, make_request, make_tier
from tests.serving.sockets import calling, local, until

CALLERS = 20


@asynccontextmanager
async def behind_grpc(tier: Tier, port: int = 0, **options: int) -> AsyncIterator[tuple[grpc.aio.Server, int]]:
    """gRPC's server in front of a tier; several may have one port."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 1), *((f"grpc.{k}", v) for k, v in options.items())])
    server.add_generic_rpc_handlers((TierService(tier, pb.DescribeReply(bundle=tier.bundle.digest)).handler(),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield server, port
    finally:
        await server.stop(0)
        await tier.close()


@asynccontextmanager
async def load(device: Tier, bundle: Bundle) -> AsyncIterator[Counter[tuple[str, object]]]:
    """Callers that ask again and again; every answer is counted by tier and reason."""
    outcomes: Counter[tuple[str, object]] = Counter()
    over = asyncio.Event()

    async def caller() -> None:
        while not over.is_set():
            answers = await ask(device, make_request(bundle, inputs(4), point="full"))
            outcomes.update((a.tier, a.degraded) for a in answers)

    callers = [asyncio.create_task(caller()) for _ in range(CALLERS)]
    try:
        yield outcomes
    finally:
        over.set()
        await asyncio.gather(*callers)


async def test_a_server_that_drains_loses_nothing_and_is_left(tmp_path: Path) -> None:
    """Another one has its port already, as behind a balancer; the old one need not wait out its grace."""
    bundle, _ = write_skip(tmp_path)
    async with (
        behind_grpc(make_tier(bundle, 1, 4, name="old")) as (old, port),
        calling(bundle, 0, 1, [local(port)], timeout_s=60) as (device, pool),
    ):
        await until(pool.up)
        async with behind_grpc(make_tier(bundle, 1, 4, name="new"), port), load(device, bundle) as outcomes:
            await until(lambda: outcomes["old", None] > 10 * CALLERS)
            await asyncio.wait_for(old.stop(grace=600), 60)
            before = outcomes["new", None]
            await until(lambda: outcomes["new", None] > before + 10 * CALLERS)
        assert outcomes.keys() == {("old", None), ("new", None)}


async def test_connections_that_grow_old_lose_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The server breaks them off while answers that take longer than its grace are under way."""
    caplog.set_level("INFO")
    bundle, _ = write_skip(tmp_path)
    cloud = make_tier(bundle, 1, 4, name="cloud")

    async def slow(request: Request, deliver: Deliver) -> None:
        await asyncio.sleep(0.8)
        await cloud.answer(request, deliver)

    edge = make_tier(bundle, 1, 1, name="edge", upstream=Scripted(slow), timeout_s=60)
    async with (
        behind_grpc(edge, max_connection_age_ms=1000, max_connection_age_grace_ms=500) as (_, port),
        calling(bundle, 0, 1, [local(port)], timeout_s=60) as (device, pool),
    ):
        await until(pool.up)
        async with load(device, bundle) as outcomes:
            await until(lambda: sum("is going to close" in record.message for record in caplog.records) >= 2)
        assert outcomes.keys() == {("cloud", None)}
    await cloud.close()
