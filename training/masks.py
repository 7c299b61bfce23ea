"""Rows of different length: which input tells real tokens from filling, and what lengths rows are filled up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from common.errors import ConfigError
from training.argument import ArgumentError
from training.example import BATCH, Example
from training.program import Program, is_tensor

_SHORTEST = 8


@dataclass(frozen=True, kw_only=True)
class Mask:
    """An input [B, T] that tells real tokens from filling."""

    name: str
    real: bool  # what it says of real tokens; the filling gets the opposite

    @property
    def pads(self) -> dict[str, float]:
        """What rows of the mask are filled up with."""
        return {self.name: float(not self.real)}


def find_mask(example: Example, name: str | None = None) -> Mask | None:
    """The mask among the inputs, by name or because there is only one that can be meant.

    What it says of real tokens is read off the example, where the first token of every row is real.

    Raises:
        ConfigError: when there is no such input, or the example does not tell.
    """
    rows = {key: t for key, t in example.tensors.items() if t.ndim == 2}
    if name is None:
        likely = [key for key, t in rows.items() if t.dtype == torch.bool] or [key for key in rows if "mask" in key]
        if len(likely) != 1 or not example.sizes():
            return None
        name = likely[0]
    if name not in rows:
        known = ", ".join(rows) or "none"
        raise ArgumentError("mask", f"is {name!r}. It must be an input of shape [B, tokens]; there is {known}.")
    first = {bool(value) for value in rows[name][:, 0] != 0}
    if len(first) > 1:
        raise ConfigError(
            f"The example's mask {name!r} says different things of the first token of its rows. It must mark the "
            "first token of every row as real, so that one can tell what it says of real tokens."
        )
    return Mask(name=name, real=first.pop())


def buckets_for(
    example: Example, given: Mapping[str, Sequence[int]] | None, limits: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Lengths that rows are filled up to, by symbol: as given, else doubling up to the longest row.

    The longest row is what the network's positions allow, where tracing has found that out, else the example's.

    Raises:
        ConfigError: for a symbol that the inputs do not have, or a length that the network cannot take.
    """
    sizes = example.sizes()
    found: dict[str, tuple[int, ...]] = {}
    for symbol, lengths in (given or {}).items():
        if symbol not in sizes:
            raise ArgumentError(
                "buckets", f"names {symbol!r}. The inputs have {', '.join(sizes) or 'no symbolic size'}."
            )
        if not lengths or sorted(set(lengths)) != list(lengths) or lengths[0] < 1:
            raise ArgumentError(
                "buckets", f"gives {symbol!r} {list(lengths)}. It must be whole numbers in rising order."
            )
        if lengths[-1] > limits.get(symbol, lengths[-1]):
            raise ArgumentError(
                "buckets", f"gives {symbol!r} {lengths[-1]}. The network takes at most {limits[symbol]}."
            )
        found[symbol] = tuple(lengths)
    for symbol, size in sizes.items():
        longest = limits.get(symbol, size)
        doubled = [_SHORTEST << k for k in range(longest.bit_length()) if _SHORTEST << k < longest]
        found.setdefault(symbol, (*doubled, longest))
    return found


def computed_buckets(
    program: Program, values: Iterable[fx.Node], buckets: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """What lengths become inside the network, such as half of them behind a convolution of stride 2, by symbol."""
    found: dict[str, tuple[int, ...]] = {}
    for value in values:
        for size in value.meta["val"].shape if is_tensor(value) else ():
            name = program.size(size)
            if isinstance(name, str) and name != BATCH and name not in buckets:
                (symbol,) = size.node.expr.free_symbols
                lengths = buckets[program.symbols[symbol]]
                found[name] = tuple(dict.fromkeys(int(size.node.expr.subs({symbol: n})) for n in lengths))
    return found
