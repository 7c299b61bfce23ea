"""Fetch a data file once, checked against its sha256, into the user's cache."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import zlib
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from common.errors import ConfigError

_TIMEOUT_S = 30.0
_MAX_BYTES = 256 << 20


def cache_dir() -> Path:
    """Where fetched data is kept: `offramp` under $XDG_CACHE_HOME, or under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offramp"


def fetch(url: str, target: Path, sha256: str) -> None:
    """Fetch a gzipped file and move it to `target` once its unpacked content has the right sha256.

    Raises:
        ConfigError: when it cannot be fetched or its content differs; `target` is not touched then.
    """
    try:
        with urlopen(url, timeout=_TIMEOUT_S) as reply:
            packed = reply.read(_MAX_BYTES + 1)
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ConfigError(
            f"{url} cannot be fetched: {reason}. Without internet, name a folder with --data-dir."
        ) from None
    if len(packed) > _MAX_BYTES:
        raise ConfigError(f"{url} has more than {_MAX_BYTES} bytes.")
    try:
        found = hashlib.sha256(gzip.decompress(packed)).hexdigest()
    except (OSError, EOFError, zlib.error):
        raise ConfigError(f"{url} did not return a gzip file.") from None
    if found != sha256:
        raise ConfigError(f"{url} has sha256 {found} unpacked. It must be {sha256}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as file:
        file.write(packed)
    os.replace(file.name, target)
