"""Rows in a numpy archive, `.npz`: one array per input, and one of labels. Pickled arrays are never loaded."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from common.errors import ConfigError
from common.types import Array


def read_npz(path: Path) -> dict[str, Array]:
    """All arrays of an archive by name.

    Raises:
        ConfigError: when it cannot be read, is no such archive, or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ConfigError(f"{path} holds one array. It must hold several by name, one of them the labels.")
            with archive:
                return {name: _array(archive, name, path) for name in archive.files}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error):  # sizes may be whatever is written
        raise ConfigError(f"{path} is no numpy archive (.npz), or it is damaged.") from None


def _array(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> Array:
    try:
        found = archive[name]
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise ConfigError(
                f"{path}: {name} is an array of Python objects, which would have to be unpickled. "
                "Store numbers or text: rows that differ in length are filled up to one length."
            ) from None
        raise
    if not isinstance(found, np.ndarray):
        raise ConfigError(f"{path}: {name} is a file that holds no array.")
    return found
