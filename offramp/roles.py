"""Which composition a tier of the configuration gets: by its place between sensor and last exit."""

from __future__ import annotations

import dataclasses
import sys

import cloud.service
import device.service
import edge.service
from common.bundle import Bundle
from common.config import SystemConfig
from common.errors import ConfigError
from common.runtimes import AUTO, runtime_named
from common.serving.lifecycle import run
from common.serving.server import TierServer


def compose(system: SystemConfig, name: str) -> TierServer:
    """The server of one tier: device for the first, cloud for the last, edge for any between.

    Raises:
        ConfigError: when the tier's place and its settings do not fit, or its runtime is not here.
        BundleError: when a stage cannot be loaded.
    """
    config = system.tier(name)
    if config.runtime != AUTO:
        try:
            runtime_named(config.runtime, also=(AUTO,))
        except ConfigError as error:
            raise ConfigError(f"{system.path}: tiers.{name}: {error}") from None
    bundle = Bundle(system.bundle, digest=system.digest)
    if config.first:
        return device.service.compose(system, config, bundle)
    if config is system.tiers[-1]:
        return cloud.service.compose(system, config, bundle)
    return edge.service.compose(system, config, bundle)


def serve_tier(system: SystemConfig, name: str, *, worker: str | None = None) -> int:
    """Serve a tier in the foreground until SIGTERM or SIGINT; returns the exit status.

    Args:
        system: the configuration.
        name: of the tier.
        worker: for a worker of the tier, the runtime that its first process has; it opens the REST door alone.
    """
    if worker is not None:
        run(lambda: _worker(system, name, worker), leashed=True)
        return 0

    run(
        lambda: compose(system, name),
        worker=(sys.executable, "-m", "offramp", "serve", name, "--config", str(system.path)),
    )
    return 0


def _worker(system: SystemConfig, name: str, runtime: str) -> TierServer:
    config = dataclasses.replace(system.tier(name), grpc=None, ops=None, runtime=runtime)
    return TierServer(system, config, Bundle(system.bundle, digest=system.digest))
