"""The idx format of the MNIST family: a magic number, the sizes, then the bytes (LeCun, Cortes, Burges)."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np

from common.errors import ConfigError
from common.types import Array

_UINT8 = 0x08
_MAX_BYTES = 1 << 30


def find_idx(folder: Path, stem: str) -> Path | None:
    """The file `stem` or `stem`.gz in a folder, or None."""
    for name in (stem, f"{stem}.gz"):
        if (folder / name).is_file():
            return folder / name
    return None


def read_idx(path: Path, *, axes: int) -> tuple[Array, str]:
    """Read an idx file of unsigned bytes, gzipped or not.

    Returns:
        The array, uint8 with `axes` axes, and the sha256 of the unpacked file.

    Raises:
        ConfigError: when it is not such a file.
    """
    raw = _unpacked(path)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UINT8 or raw[3] != axes:
        raise ConfigError(f"{path} is not an idx file of unsigned bytes with {axes} axes.")
    start = 4 + 4 * axes
    shape = tuple(int(size) for size in np.frombuffer(raw[4:start].ljust(4 * axes, b"\0"), ">u4"))
    if len(raw) - start != math.prod(shape):
        raise ConfigError(f"{path} declares {list(shape)} bytes but holds {len(raw) - start}: it is damaged.")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape), hashlib.sha256(raw).hexdigest()


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"{path} unpacks to more than {_MAX_BYTES} bytes.")
    return raw
