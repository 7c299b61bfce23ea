"""Composition of the cloud tier."""

from __future__ import annotations

from common.bundle import Bundle
from common.config import SystemConfig
from common.errors import ConfigError
from common.serving.server import TierServer
from common.tier_config import TierConfig


def compose(system: SystemConfig, config: TierConfig, bundle: Bundle) -> TierServer:
    """The last tier: it runs the last stage, whose exit accepts every row, and forwards to nobody.

    Raises:
        ConfigError: when it does not hold the last exit, or still names an upstream.
    """
    if config.stop != len(bundle.manifest.stages) or config.upstream:
        raise ConfigError(f"{system.path}: tiers.{config.name} is the last tier: it must run the last stage.")
    return TierServer(system, config, bundle)
