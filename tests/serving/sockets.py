"""Tiers behind real gRPC doors on loopback, every port chosen by the system."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from common.address import Address
from common.bundle import Bundle
from common.limits import Limits
from common.serving.grpc_door import GrpcDoor
from common.serving.pool import Link, Pool
from common.serving.stream import StreamLink
from common.serving.tier import Tier
from common.serving.unary import UnaryLink
from protos import tier_pb2 as pb
from tests.serving.chains import make_tier

LOOPBACK = Address(host="127.0.0.1", port=0)


def local(port: int) -> Address:
    return Address(host="127.0.0.1", port=port)


@asynccontextmanager
async def served(tier: Tier, address: Address = LOOPBACK) -> AsyncIterator[tuple[GrpcDoor, Address]]:
    """A tier behind a gRPC door."""
    door = GrpcDoor(tier, pb.DescribeReply(tier=tier.name, bundle=tier.bundle.digest))
    port = await door.start(address)
    await door.set_ready(True)
    try:
        yield door, local(port)
    finally:
        await door.stop()
        await tier.close()


@asynccontextmanager
async def calling(
    bundle: Bundle,
    start: int,
    stop: int,
    upstream: Sequence[Address],
    *,
    name: str = "device",
    unary: bool = False,
    timeout_s: float = 10.0,
    limits: Limits | None = None,
) -> AsyncIterator[tuple[Tier, Pool]]:
    """A tier that dials upstream over sockets."""
    tier = make_tier(bundle, start, stop, name=name, timeout_s=timeout_s, limits=limits)
    kind: Callable[..., Link] = UnaryLink if unary else StreamLink
    pool = Pool(upstream, lambda at: kind(at, bundle=bundle, limits=tier.limits, metrics=tier.metrics))
    tier.forwarder.upstream = pool
    await pool.start()
    try:
        yield tier, pool
    finally:
        await tier.close()
        await pool.close()


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that must happen; a test that waits in vain fails."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
