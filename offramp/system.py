"""A configuration together with the bundle it names, checked before any port is opened."""

from __future__ import annotations

from pathlib import Path

from common.bundle import Bundle
from common.config import SystemConfig, load_config, resolve


def load_system(path: Path, tier: str | None = None) -> SystemConfig:
    """Read `tiers.yaml`, fit it to its bundle, and check that `tier` is in it.

    Raises:
        ConfigError: when the file, the environment or the tier's name is wrong.
        BundleError: when the bundle's manifest is.
    """
    file = load_config(path)
    if tier is not None:
        file.tier(tier)
    manifest = Bundle(file.bundle, digest=file.digest).manifest
    return resolve(file, num_stages=len(manifest.stages), operating_points=manifest.operating_points)
