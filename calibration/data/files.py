"""Find and read the user's own files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from common.errors import ConfigError


def find(name: str, data_dir: Path | None, home: Path | None) -> Path:
    """The file or folder that a recipe names.

    Args:
        name: as the recipe has it.
        data_dir: what `--data-dir` says: the name is looked for there, first with the folders it has, then without.
        home: the recipe's folder, where a relative name starts without `data_dir`; None: the current folder.

    Raises:
        ConfigError: when there is no such file.
    """
    start = home if home is not None else Path()
    places = [data_dir / name, data_dir / Path(name).name, start / name] if data_dir is not None else [start / name]
    for place in places:
        if place.exists():
            return place
    tried = " or ".join(dict.fromkeys(str(place) for place in places))
    hint = "" if data_dir is not None or home is not None else " --data-dir names the folder that holds it."
    raise ConfigError(f"data: there is no {tried}.{hint}")


def content(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        ConfigError: when it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None


def sha256_of(path: Path) -> str:
    """The sha256 of a file.

    Raises:
        ConfigError: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
