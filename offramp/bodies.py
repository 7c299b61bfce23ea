"""Request bodies for `POST /predict`, from files as people have them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ConfigError

TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".npy": "application/x-npy",
    ".json": "application/json",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One request: bytes and their type."""

    content_type: str
    data: bytes


def read_body(path: Path) -> Body:
    """The file as a request body; JSON that is a bare array becomes one input.

    Raises:
        ConfigError: when it cannot be read, or its name has an ending that no door takes.
    """
    kind = TYPES.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"{path} has none of the endings {', '.join(TYPES)}.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    if kind == "application/json" and isinstance(document := _json(path, data), list):
        data = json.dumps({"inputs": [document]}).encode()
    return Body(content_type=kind, data=data)


def _json(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}.") from None
