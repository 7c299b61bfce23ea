"""The gRPC door: a server with `offramp.v1.Tier`, standard health and reflection."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common.address import Address
from common.errors import ConfigError
from common.serving.bounds import bounds
from common.serving.core import Core
from common.serving.tier_service import TierService
from common.wire.channels import SERVICE, server_options
from protos import tier_pb2 as pb


class GrpcDoor:
    """A gRPC server in front of a tier.

    Args:
        core: the tier.
        describe: what `Describe` replies.
    """

    def __init__(self, core: Core, describe: pb.DescribeReply) -> None:
        self._core = core
        most = bounds(core.bundle.manifest, core.limits).message_bytes
        self._server = grpc.aio.server(options=server_options(most))
        self._health = health.aio.HealthServicer()
        self.servicer = TierService(core, describe)
        self._server.add_generic_rpc_handlers((self.servicer.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, address: Address) -> int:
        """Listen; returns the bound port. Raises ConfigError when the address is taken."""
        try:
            port: int = self._server.add_insecure_port(str(address))
        except RuntimeError:
            port = 0
        if port == 0:
            raise ConfigError(f"grpc address {address} cannot be opened: it is in use or not of this machine.")
        await self._server.start()
        return port

    async def set_ready(self, ready: bool) -> None:
        """Say over grpc.health.v1 whether the tier serves."""
        state = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            await self._health.set(service, state)

    async def stop(self) -> None:
        """Close all streams. Drain first: what is still in flight is cancelled."""
        await self._server.stop(grace=None)
