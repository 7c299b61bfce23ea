"""Named arrays and a JSON document in one numpy archive (.npz), written in one step. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import ConfigError
from common.types import Array

DOCUMENT = "__origin__"  # the entry of the document


def write_arrays(path: Path, arrays: Mapping[str, Array], document: Mapping[str, Any]) -> None:
    """Write an archive; what lay at `path` before is replaced by a whole one.

    Raises:
        ConfigError: when `path` cannot be written.
    """
    entry = {DOCUMENT: np.frombuffer(json.dumps(document).encode(), np.uint8)}
    partial = path.with_name(f".{path.name}.partial.npz")
    try:
        np.savez(partial, allow_pickle=False, **arrays, **entry)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None


def read_arrays(path: Path, what: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the document of an archive.

    Args:
        path: of the archive.
        what: it should hold, for the sentence when it does not.

    Raises:
        ConfigError: when the file is no such archive.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        document = json.loads(arrays.pop(DOCUMENT).tobytes())
        if not isinstance(document, dict):
            raise ValueError("its document is no mapping")
    except Exception as error:  # a damaged zip file raises many things
        raise ConfigError(f"{path} does not hold {what}: {reason_of(error)}") from None
    return arrays, document


def reason_of(error: Exception) -> str:
    """The first line of an error's message, or its kind."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
