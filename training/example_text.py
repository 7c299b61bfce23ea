"""Examples as text, for the command line: `3x224x224`, or `image=float32[3,224,224]`, `ids=int64[tokens=128]`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from common.errors import ConfigError
from common.manifest import DTYPES
from training.example import Shape

_PLAIN = re.compile(r"\d+(?:x\d+)*")
_NAMED = re.compile(r"([A-Za-z_]\w*)=(\w+)\[([^\]]*)\]")
_SIZE = re.compile(r"(?:([A-Za-z_]\w*)=)?(\d+)")
_FORMS = "3x224x224 (float32), or NAME=TYPE[SIZE,...] such as ids=int64[tokens=128]"


def example_from(texts: Sequence[str]) -> tuple[Tensor | dict[str, Tensor], dict[str, Shape] | None]:
    """Make an example of descriptions, and the row shapes with their symbols.

    Floats are random, whole numbers are 1, booleans are false.

    Raises:
        ConfigError: for a text that is none of the forms.
    """
    if len(texts) == 1 and _PLAIN.fullmatch(texts[0]):
        return torch.randn(2, *map(int, texts[0].split("x")), generator=torch.Generator().manual_seed(0)), None
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, Shape] = {}
    for text in texts:
        found = _NAMED.fullmatch(text.replace(" ", ""))
        sizes = [_SIZE.fullmatch(size) for size in found[3].split(",") if size] if found is not None else []
        if found is None or None in sizes or found[2] not in DTYPES:
            raise ConfigError(f"The example {text!r} cannot be read. It must be {_FORMS}.")
        known = [size for size in sizes if size is not None]
        shapes[found[1]] = tuple(size[1] or int(size[2]) for size in known)
        tensors[found[1]] = _filled(found[2], [int(size[2]) for size in known])
    return tensors, shapes


def _filled(dtype: str, sizes: Sequence[int]) -> Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    if kind.is_floating_point:
        return torch.randn(2, *sizes, generator=torch.Generator().manual_seed(0)).to(kind)
    return torch.full((2, *sizes), kind != torch.bool, dtype=kind)
