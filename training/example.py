"""The example: a batch that a network accepts, and what it says about rows of any number and length.

From it follow the input tensors of the bundle: their names are those of forward's arguments, their row shapes
the example's, with a symbol such as "tokens" where rows may differ in length.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.manifest import DTYPES, TensorSpec

Shape = tuple[int | str, ...]
Shapes = Mapping[str, Sequence[int | str]]
Value = TypeVar("Value")
Given = Tensor | Sequence[Tensor] | Mapping[str, Tensor]

BATCH, TOKENS = "batch", "tokens"
ROWS = 3  # of the batch that is captured: a size that no other axis of a small network is likely to have


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A batch by tensor name, and how it is handed to forward."""

    tensors: Mapping[str, Tensor]  # [rows, ...] each, in forward's order
    shapes: Mapping[str, Shape]  # row shapes; symbols where rows may differ
    keywords: tuple[str, ...] = ()  # forward's names for them, where it takes keyword arguments
    guessed: bool = False  # whether symbols were put in without being asked for

    @property
    def arguments(self) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Positional and keyword arguments for forward."""
        values = tuple(self.tensors.values())
        return ((), dict(zip(self.keywords, values, strict=True))) if self.keywords else (values, {})

    def called(self, names: Sequence[str]) -> Example:
        """The same example with other names for its tensors."""
        return replace(self, tensors=_renamed(self.tensors, names), shapes=_renamed(self.shapes, names))

    def rows(self, count: int) -> Example:
        """The same example with another number of rows, by repetition."""
        tensors = {name: tensor[torch.arange(count) % len(tensor)] for name, tensor in self.tensors.items()}
        return replace(self, tensors=tensors)

    def crowds(self) -> Iterator[Example]:
        """The first row beside itself, then the same with other rows in the second and the last of the four places.

        The others are the first row backwards with larger numbers, the same with its own numbers, which a network takes
        more surely, and rows of the example.
        """
        for kind in ("itself", "larger", "backwards", "given"):
            tensors = {}
            for name, tensor in self.tensors.items():
                first = tensor[:1]
                back = first.flip(tuple(range(1, tensor.ndim)))
                one, other = {
                    "itself": (first, first),
                    "larger": (6 * back + 2, 3 * back + 1) if tensor.is_floating_point() else (back, back),
                    "backwards": (back, back),
                    "given": (tensor[1:2], tensor[2:3]),
                }[kind]
                tensors[name] = torch.cat([first, one, first, other])
            yield replace(self, tensors=tensors)

    def fixed(self) -> Example:
        """The same example without symbols."""
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in self.tensors.items()}
        return replace(self, shapes=shapes, guessed=False)

    def halved(self) -> Example:
        """The same rows, cut off at half their sizes, of which two are left at least."""
        sizes = {symbol: max(size // 2, 2) for symbol, size in self.sizes().items()}
        tensors = dict(self.tensors)
        for name, shape in self.shapes.items():
            for axis, symbol in enumerate(shape, start=1):
                if symbol in sizes:
                    tensors[name] = tensors[name].narrow(axis, 0, sizes[str(symbol)])
        return replace(self, tensors=tensors)

    def sizes(self) -> dict[str, int]:
        """What every symbol is in this batch."""
        found: dict[str, int] = {}
        for name, shape in self.shapes.items():
            found.update({s: n for s, n in zip(shape, self.tensors[name].shape[1:], strict=True) if isinstance(s, str)})
        return found

    def specs(self, pads: Mapping[str, float]) -> tuple[TensorSpec, ...]:
        """The input tensors as a manifest describes them, with what rows are filled up with."""
        return tuple(
            TensorSpec(name=name, dtype=_dtype(tensor), shape=self.shapes[name], pad=float(pads.get(name, 0.0)))
            for name, tensor in self.tensors.items()
        )


def example_of(
    model: nn.Module, given: Given, shapes: Shapes | None = None, inputs: Sequence[str] | None = None
) -> Example:
    """Check an example and name its tensors after forward's arguments.

    Args:
        model: whose forward takes it.
        given: one tensor or several in forward's order, or by argument name; the first axis of each is the row.
        inputs: other names for the tensors.
        shapes: row shapes by tensor name, with symbols for sizes that differ from row to row. Left out, whole
            numbers (int32, int64) of row shape [n] count as token ids and masks of row shape [tokens].

    Raises:
        ConfigError: naming the tensor that is wrong and what is accepted.
    """
    tensors = dict(given) if isinstance(given, Mapping) else _named(model, given)
    if not tensors:
        raise ConfigError("The example holds no tensor. It must hold one for each argument of forward.")
    keywords = tuple(tensors) if isinstance(given, Mapping) else ()
    if inputs is not None:
        tensors = _renamed(tensors, inputs)
    for name, tensor in tensors.items():
        _check(name, tensor)
    rows = {len(tensor) for tensor in tensors.values()}
    if len(rows) > 1 or 0 in rows:
        raise ConfigError(
            f"The example's tensors have {sorted(rows)} rows. They must have the same number, at least 1."
        )
    guessed = shapes is None
    found = _tokens(tensors) if shapes is None else _given(tensors, shapes)
    return Example(tensors=tensors, shapes=found, keywords=keywords, guessed=guessed).rows(ROWS)


def _renamed(values: Mapping[str, Value], names: Sequence[str]) -> dict[str, Value]:
    if len(names) != len(values) or len(set(names)) != len(names):
        raise ConfigError(f"inputs names {list(names)}. The network takes {len(values)} tensors.")
    return dict(zip(names, values.values(), strict=True))


def _named(model: nn.Module, given: Tensor | Sequence[Tensor]) -> dict[str, Tensor]:
    tensors = (given,) if isinstance(given, Tensor) else tuple(given)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(model.forward).parameters.values() if p.kind in kinds]
    names += [f"input{k}" for k in range(len(names), len(tensors))]
    return {
        name.lstrip("_") or f"input{k}": tensor for k, (name, tensor) in enumerate(zip(names, tensors, strict=False))
    }


def _check(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise ConfigError(f"The example's {name!r} is a {type(tensor).__name__}. It must be a tensor.")
    if tensor.ndim == 0:
        raise ConfigError(f"The example's {name!r} has no axis. Its first axis must be the row.")
    if _dtype(tensor) not in DTYPES:
        raise ConfigError(f"The example's {name!r} is {_dtype(tensor)}. It must be one of {', '.join(sorted(DTYPES))}.")


def _tokens(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Row shapes as they are, but "tokens" for rows of whole numbers that are all of one length."""
    whole = [t for t in tensors.values() if t.dtype in (torch.int32, torch.int64, torch.bool) and t.ndim == 2]
    lengths = {t.shape[1] for t in whole if t.dtype != torch.bool}
    symbolic = len(lengths) == 1 and min(lengths) > 1
    return {
        name: (TOKENS,)
        if symbolic and any(tensor is one for one in whole) and tensor.shape[1] in lengths
        else tuple(tensor.shape[1:])
        for name, tensor in tensors.items()
    }


def _given(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int | str]]) -> dict[str, Shape]:
    if unknown := set(shapes) - set(tensors):
        raise ConfigError(f"shapes names {sorted(unknown)[0]!r}. The example has {', '.join(tensors)}.")
    found: dict[str, Shape] = {}
    sizes: dict[str, int] = {}
    for name, tensor in tensors.items():
        shape = tuple(shapes.get(name, tuple(tensor.shape[1:])))
        fits = len(shape) == tensor.ndim - 1 and all(
            sizes.setdefault(want, have) == have if isinstance(want, str) else want == have
            for want, have in zip(shape, tensor.shape[1:], strict=True)
        )
        if not fits:
            raise ConfigError(
                f"shapes gives {name!r} the row shape {list(shape)}. The example's is {list(tensor.shape[1:])}."
            )
        found[name] = shape
    if short := [symbol for symbol, size in sizes.items() if size < 2]:
        raise ConfigError(f"The example has {sizes[short[0]]} {short[0]}. It must have at least 2, to be told from 1.")
    return found


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
