"""Composition of an edge tier."""

from __future__ import annotations

from common.bundle import Bundle
from common.config import SystemConfig
from common.errors import ConfigError
from common.serving.server import TierServer
from common.tier_config import TierConfig


def compose(system: SystemConfig, config: TierConfig, bundle: Bundle) -> TierServer:
    """A middle tier: its rows come over gRPC, joined from all devices, and what it cannot decide goes on up.

    Raises:
        ConfigError: when it lacks a side.
    """
    if config.grpc is None or not config.upstream:
        raise ConfigError(f"{system.path}: tiers.{config.name} needs a grpc address and an upstream.")
    return TierServer(system, config, bundle)
