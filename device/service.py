"""Composition of the device tier."""

from __future__ import annotations

from common.bundle import Bundle
from common.config import SystemConfig
from common.errors import ConfigError
from common.serving.server import TierServer
from common.tier_config import TierConfig


def compose(system: SystemConfig, config: TierConfig, bundle: Bundle) -> TierServer:
    """The entry tier: it opens the REST door, resolves operating points, and is ready on its own.

    Raises:
        ConfigError: when nobody could ask it.
    """
    if config.rest is None and config.grpc is None:
        raise ConfigError(f"{system.path}: tiers.{config.name} has neither rest nor grpc: nobody could ask it.")
    return TierServer(system, config, bundle)
