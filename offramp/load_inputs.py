"""Real inputs for load: files in a directory, made into request bodies once, before the clock runs."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import ConfigError
from offramp.bodies import TYPES, Body, read_body

if TYPE_CHECKING:
    from common.types import Array

KINDS = ("json", "png", "npy")
_LABELLED = re.compile(r"\d+-(\d+)")  # <index>-<label>.png
_IMAGES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadInput:
    """A request body with the right answer, where that is known."""

    body: Body
    label: int | None


def load_inputs(directory: Path, kind: str) -> list[LoadInput]:
    """Every image or .npy file of a directory as a body of the wanted kind, in the order of their names.

    Args:
        directory: where the files are; a name `<index>-<label>.png` gives the right answer.
        kind: "json" or "npy" sends raw values [channels, height, width]; "png" sends image files as they are.

    Raises:
        ConfigError: when there is no usable file.
    """
    suffixes = _IMAGES if kind == "png" else (*_IMAGES, ".npy")
    files = sorted(path for path in _listed(directory) if path.suffix.lower() in suffixes)
    if not files:
        raise ConfigError(f"{directory} holds no file that ends in {', '.join(suffixes)}.")
    return [LoadInput(body=_body(path, kind), label=_label(path)) for path in files]


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError as error:
        raise ConfigError(f"{directory} cannot be read: {error.strerror}.") from None


def _label(path: Path) -> int | None:
    found = _LABELLED.fullmatch(path.stem)
    return int(found[1]) if found else None


def _body(path: Path, kind: str) -> Body:
    if kind == "png":
        return read_body(path)
    values = _values(path)
    if kind == "json":
        document = {"inputs": [values.tolist()]}
        return Body(content_type=TYPES[".json"], data=json.dumps(document, separators=(",", ":")).encode())
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, values[None], allow_pickle=False)
    return Body(content_type=TYPES[".npy"], data=buffer.getvalue())


def _values(path: Path) -> Array:
    """The raw values of one input: pixels 0..255 as [channels, height, width], or what a .npy file holds."""
    import numpy as np
    from PIL import Image

    try:
        if path.suffix.lower() == ".npy":
            loaded: Array = np.load(path, allow_pickle=False)
            return loaded
        with Image.open(path) as image:
            pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
