"""One tier as a process: stages loaded and tested, doors opened, upstream dialled, and drained at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from common.address import Address
from common.bundle import Bundle
from common.config import SystemConfig
from common.errors import ConfigError
from common.runtimes import AUTO, configured
from common.serving.asgi import AsgiApp
from common.serving.configuration import guarantees, without_guarantee
from common.serving.grpc_door import GrpcDoor
from common.serving.http import LINGER_S, HttpServer, check_free
from common.serving.metrics import Metrics
from common.serving.ops import OpsDoor
from common.serving.pool import Link, Pool
from common.serving.rest import RestDoor
from common.serving.self_test import self_test
from common.serving.stages import load_stages, warm_up
from common.serving.stream import StreamLink
from common.serving.tier import Tier
from common.serving.unary import UnaryLink
from common.serving.workers import Workers
from common.tier_config import TierConfig, variable
from common.version import VERSION
from protos import tier_pb2 as pb

log = logging.getLogger(__name__)

LINKS: dict[str, type[StreamLink] | type[UnaryLink]] = {"tier": StreamLink, "tier-unary": UnaryLink}


class TierServer:
    """Assembles a tier from its configuration.

    Args:
        system: the whole configuration.
        config: this tier's section.
        bundle: the network.

    Raises:
        BundleError: when a stage cannot be loaded or fails its self-test.
    """

    def __init__(self, system: SystemConfig, config: TierConfig, bundle: Bundle) -> None:
        self.config = config
        self._path = system.path
        self.metrics = Metrics(config.name)
        self._pool: Pool | None = None
        if config.upstream:
            self._pool = Pool(
                config.upstream,
                partial(_connect, config.upstream_protocol, bundle=bundle, config=config, metrics=self.metrics),
            )
        stop = config.stop if config.stop > config.start else 0  # a relay runs nothing, whatever it holds
        measured = bundle.manifest.operating_points[system.operating_point].configuration or {}
        runners = load_stages(
            bundle,
            start=config.start,
            stop=stop,
            runtime=config.runtime,
            threads=config.threads,
            precision=measured.get("precision", "float32"),
        )
        self.tier = Tier(
            name=config.name,
            bundle=bundle,
            runners=runners,
            stop=stop,
            operating_point=system.operating_point,
            limits=config.limits,
            metrics=self.metrics,
            upstream=self._pool,
            upstream_timeout_s=config.upstream_timeout_ms / 1e3,
        )
        warm_up(bundle.manifest, runners, self.tier.batcher.costs)
        for name, difference in without_guarantee(system, bundle.manifest, runners):
            log.warning(
                "operating point %s carries no guarantee here: %s (see its configuration in the bundle)",
                name,
                difference,
            )
        for name, holds in guarantees(system, bundle.manifest, runners).items():
            self.metrics.guaranteed(name, holds)
        self._grpc: GrpcDoor | None = None
        self._http: list[HttpServer] = []
        self._workers: Workers | None = None
        self.ports: dict[str, int] = {}  # door -> bound port

    async def start(self, worker: Sequence[str] = ()) -> None:
        """Open the doors that have an address, dial upstream, and report ready.

        Args:
            worker: the command that starts a worker of this tier; empty in a worker.

        Raises:
            ConfigError: when an address cannot be opened, or a worker does not start.
            BundleError: when the self-test gets no answer.
        """
        shared = self.config.workers > 1
        if self.config.grpc is not None:
            self._grpc = GrpcDoor(self.tier, describe(self.tier, self.config))
            with self._opening("grpc"):
                self.ports["grpc"] = await self._grpc.start(self.config.grpc)
        if self.config.rest is not None:
            if shared and worker:
                with self._opening("rest"):
                    await check_free(self.config.rest.host, self.config.rest.port)
            await self._open_http("rest", RestDoor(self.tier), self.config.rest, shared=shared)
        if shared and worker:
            rest = {variable(self.config.name, "REST"): self._address("rest")}
            self._workers = Workers([*worker, "--worker", self.runtime], rest, self.config.workers - 1)
        if self.config.ops is not None:
            await self._open_http("ops", OpsDoor(self.tier, self._exposition), self.config.ops)
        if self._pool is not None:
            await self._pool.start()
        if self._workers is not None:
            await self._workers.start()
        await self_test(self.tier, self.config.start)
        await self._set_ready(True)

    async def stop(self) -> None:
        """Refuse new requests, let those in flight finish for a while, then close everything."""
        await self._set_ready(False)
        if self._grpc is not None:
            self._grpc.servicer.draining = True
        drain_s = self.config.drain_seconds
        began = time.monotonic()
        until, linger = began + drain_s, began + min(drain_s, LINGER_S)
        workers = [] if self._workers is None else [self._workers.stop(drain_s)]
        await asyncio.gather(*(server.stop(grace_s=drain_s) for server in self._http), *workers)
        while self.tier.in_flight and time.monotonic() < until:
            await asyncio.sleep(0.01)
        while self._grpc is not None and self._grpc.has_callers and time.monotonic() < linger:
            await asyncio.sleep(0.01)  # who calls now is refused; a call that the door's end surprises would be cut off
        if self.tier.in_flight:
            log.warning("%d requests were still in flight after %g s", self.tier.in_flight, self.config.drain_seconds)
        if self._grpc is not None:
            await self._grpc.stop()
        await self.tier.close()
        if self._pool is not None:
            await self._pool.close()

    @property
    def runtime(self) -> str:
        """The name of the runtime in use: what `auto` has picked, as its workers must not pick another."""
        if self.config.runtime == AUTO and self.tier.runners:
            picked = next(iter(self.tier.runners.values()))
            return configured({"runtime": picked.runtime, "precision": picked.precision})
        return self.config.runtime

    def summary(self) -> str:
        """One line for people and for whoever waits until the tier is ready."""
        doors = ", ".join(f"{door} {self._address(door)}" for door in self.ports) or "no door"
        stages = "relay"
        if self.config.stop > self.config.start:
            runner = self.tier.runners[self.config.start]
            stages = f"stages {self.config.start}..{self.config.stop - 1} on {runner.runtime} in {runner.precision}"
        if self.config.workers > 1:
            stages += f"; {self.config.workers} workers"
        upstream = ", ".join(map(str, self.config.upstream)) or "none"
        return f"{self.tier.name} ready: {doors}; {stages}; upstream {upstream}; bundle {self.tier.bundle.name}"

    def _address(self, door: str) -> str:
        listen: Address = getattr(self.config, door)
        return str(Address(host=listen.host, port=self.ports[door]))

    async def _exposition(self) -> bytes:
        """The metrics of all processes of this tier."""
        own = self.metrics.text()
        return own if self._workers is None else await self._workers.metrics(own)

    async def _open_http(self, door: str, app: AsgiApp, address: Address, *, shared: bool = False) -> None:
        with self._opening(door):
            server = await HttpServer.start(app, address.host, address.port, shared=shared)
        self._http.append(server)
        self.ports[door] = server.port

    @contextmanager
    def _opening(self, door: str) -> Iterator[None]:
        """Say which address it is that cannot be opened, and where it stands (ConfigError)."""
        try:
            yield
        except OSError as error:
            name = variable(self.config.name, door.upper())
            key = name if os.environ.get(name) else f"tiers.{self.config.name}.{door}"
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
            raise ConfigError(
                f"{self._path}: {key} is {getattr(self.config, door)}, which cannot be opened ({why}). It must be an "
                "address of this machine that nobody else listens on."
            ) from None

    async def _set_ready(self, ready: bool) -> None:
        self.tier.ready = ready
        if self._grpc is not None:
            await self._grpc.set_ready(ready)


def describe(tier: Tier, config: TierConfig) -> pb.DescribeReply:
    """What a tier says of itself to others."""
    manifest = tier.bundle.manifest
    return pb.DescribeReply(
        tier=tier.name,
        version=VERSION,
        bundle=tier.bundle.digest,
        bundle_name=manifest.name,
        start_stage=config.start,
        stop_stage=config.stop,
        stages=[
            pb.StageInfo(stage=stage, runtime=runner.runtime, precision=runner.precision)
            for stage, runner in sorted(tier.runners.items())
        ],
        operating_points=sorted(manifest.operating_points),
    )


def _connect(protocol: str, address: str, *, bundle: Bundle, config: TierConfig, metrics: Metrics) -> Link:
    return LINKS[protocol](address, bundle=bundle, limits=config.limits, metrics=metrics)
