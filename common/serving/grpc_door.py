"""The gRPC door: a server with `offramp.v1.Tier`, standard health and reflection.

Every connection is accepted here. Those of other tiers are served without gRPC's library, all others by it.
"""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common.address import Address
from common.serving.bounds import bounds
from common.serving.core import Core
from common.serving.incoming import Connections, Incoming
from common.serving.listening import listen, stop_listening
from common.serving.private_folder import PrivateFolder
from common.serving.served import ServedStream
from common.serving.tier_service import TierService
from common.wire.channels import INFER_STREAM, SERVICE, server_options
from common.wire.http2 import MessageStream
from protos import tier_pb2 as pb

FLUSH_S = 2.0  # for the last replies when the door closes; milliseconds, unless the machine is busy or a caller slow


class GrpcDoor:
    """A gRPC server in front of a tier.

    Args:
        core: the tier.
        describe: what `Describe` replies.
    """

    def __init__(self, core: Core, describe: pb.DescribeReply) -> None:
        self._core = core
        self._most = bounds(core.bundle.manifest, core.limits).message_bytes
        self._server = grpc.aio.server(options=server_options(self._most))
        self._listener: asyncio.Server | None = None
        self._connections = Connections(core.limits.grpc_connections)
        self._folder: PrivateFolder | None = None  # of the socket where gRPC's server listens
        self._health = health.aio.HealthServicer()
        self.servicer = TierService(core, describe)
        self._server.add_generic_rpc_handlers((self.servicer.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, address: Address) -> int:
        """Listen; returns the bound port. Raises OSError when the address cannot be opened."""
        try:
            await self._listen(address)
        except OSError:
            self._remove_folder()
            raise
        await self._server.start()
        assert self._listener is not None
        await self._listener.start_serving()
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def _listen(self, address: Address) -> None:
        self._folder = PrivateFolder()
        behind = str(self._folder.path / "grpc")

        def incoming() -> Incoming:
            return Incoming(self._connections, self._serve, behind)

        self._listener = await listen(incoming, address.host, address.port)
        self._server.add_insecure_port(f"unix:{behind}")

    def _serve(self, transport: asyncio.Transport) -> MessageStream:
        """Serve another tier on its connection."""
        host, port, *_ = transport.get_extra_info("peername") or ("?", 0)
        peer = Address(host=host, port=port)

        def lost(error: Exception | None) -> None:
            self._connections.gone(transport, peer, error)
            stream.withdraw_all()

        messages = MessageStream(max_message_bytes=self._most, received=lambda data: stream.take(data), lost=lost)
        stream = ServedStream(self.servicer, messages.send)
        return messages.serve(path=INFER_STREAM)

    async def set_ready(self, ready: bool) -> None:
        """Say over grpc.health.v1 whether the tier serves."""
        state = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE):
            await self._health.set(service, state)

    @property
    def has_callers(self) -> bool:
        """Whether any connection is open."""
        return bool(self._connections)

    async def stop(self) -> None:
        """Close all connections, those of callers who read once they have what was said. Drain first: what is still
        in flight is cancelled.
        """
        if self._listener is not None:
            await stop_listening(self._listener)
        await self._server.stop(grace=FLUSH_S)  # a tier may be through with a request before gRPC is with its reply
        await self._connections.close(FLUSH_S)
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            self._folder.remove()
