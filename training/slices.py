"""Take the part of a program that makes some values from others, as a graph of its own.

Weights and whatever follows from weights and sizes alone are made where they are needed. Sizes are read off the
tensors that the part is given, so that no size ever crosses a cut.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx

from common.errors import ConfigError
from training.modules import modules_of
from training.program import Program, in_training, is_number, is_tensor

aten = torch.ops.aten
_MOVE = aten.movedim.int
_LINE, _TORCH = re.compile(r'File "([^"]+)", line (\d+)'), str(Path(torch.__file__).parent)
_FORMULAS: dict[str, Any] = {
    "Add": operator.add,
    "Mul": operator.mul,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "PythonMod": operator.mod,
    "Mod": operator.mod,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """A part of a program: what it is given, what it makes, and the operations between."""

    program: Program
    reads: tuple[fx.Node, ...]
    targets: tuple[fx.Node, ...]
    nodes: tuple[fx.Node, ...]

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the tensors of the network that it reads."""
        names: dict[str, None] = {}
        for node in self.nodes:
            for value in self.program.arguments(node):
                if value in self.program.weights:
                    names[self.program.weights[value]] = None
        for value in self.targets:
            if value in self.program.weights:
                names[self.program.weights[value]] = None
        return tuple(names)


def slice_of(program: Program, targets: Sequence[fx.Node], given: Sequence[fx.Node]) -> Slice:
    """Find what makes `targets` from `given`.

    Raises:
        ConfigError: when something else of the input is needed.
    """
    found: set[fx.Node] = set()
    reads: set[fx.Node] = set()
    effects = {node for node in program.nodes if changed_weight(program, node) is not None}
    pending = [program.value(target) for target in targets]
    while pending:
        value = pending.pop()
        if value in given:
            reads.add(value)
        elif value in program.weights or value in found or _is_size(program, value):
            pass
        elif value in program.inputs.values():
            raise ConfigError(f"The part behind a cut needs the input {value.name!r}, which does not cross it.")
        else:
            found.add(value)
            pending.extend(program.arguments(value))
        if not pending:
            pending.extend(_effects_of(program, found, effects - found))
    nodes = tuple(node for node in program.nodes if node in found)
    ordered = tuple(value for value in given if value in reads)
    return Slice(program=program, reads=ordered, targets=tuple(map(program.value, targets)), nodes=nodes)


def graph_of(part: Slice, reads: Sequence[fx.Node], *, as_training: bool = False) -> fx.Graph:
    """Write a slice as a graph: placeholders for `reads`, weights as attributes, a tuple of targets.

    Args:
        part: to be written.
        reads: at least what the slice reads; sizes may be read off the others.
        as_training: turn on batch norm's and dropout's training mode, for a capture in evaluation mode.

    Raises:
        ConfigError: when a size is needed that no tensor of `reads` tells.
    """
    return _Writer(part, reads, as_training).write()


class _Writer:
    """Copies the operations of a slice into a new graph."""

    def __init__(self, part: Slice, reads: Sequence[fx.Node], as_training: bool) -> None:
        self.part = part
        self.program = part.program
        self.as_training = as_training
        self.graph = fx.Graph()
        self.known: dict[fx.Node, fx.Node] = {}
        self.sizes: dict[Any, fx.Node] = {}
        for value in reads:
            self.known[value] = self._moved(self.graph.placeholder(value.name), 0, self.program.row_axis(value))
        self._device: fx.Node | None = None

    def write(self) -> fx.Graph:
        for node in self.part.nodes:
            self.known[node] = self._copy(node)
        targets = self.part.targets
        self.graph.output(tuple(self._moved(self._of(value), self.program.row_axis(value), 0) for value in targets))
        self.graph.lint()
        return self.graph

    def _moved(self, node: fx.Node, axis: int | None, to: int | None) -> fx.Node:
        """Between stages the rows come first, wherever forward has them."""
        return node if axis == to or axis is None or to is None else self.graph.call_function(_MOVE, (node, axis, to))

    def _copy(self, node: fx.Node) -> fx.Node:
        if node in self.program.parts:
            return self.graph.create_node("get_attr", f"parts.{node.target}")
        args = fx.map_arg(node.args, lambda arg: self._of(self.program.value(arg)))
        kwargs = fx.map_arg(node.kwargs, lambda arg: self._of(self.program.value(arg)))
        args, kwargs = fx.node.map_aggregate((args, kwargs), self._placed)
        target = aten.reshape.default if node.target is aten.view.default else node.target  # any memory format
        if self.as_training:
            target, args = in_training(target, tuple(args))
        return self.graph.call_function(target, args, dict(kwargs))  # type: ignore[arg-type]

    def _of(self, value: fx.Node) -> Any:
        if value in self.known:
            return self.known[value]
        if value in self.program.weights:
            self.known[value] = self.graph.create_node("get_attr", f"tensors.{self.program.weights[value]}")
            return self.known[value]
        number = value.meta["val"]
        if not isinstance(number, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return number
        return self._size(value)

    def _placed(self, arg: Any) -> Any:
        """New tensors are made where the data are, not where the network was captured."""
        if not isinstance(arg, torch.device) or not self.part.reads:
            return arg
        if self._device is None:
            self._device = self.graph.call_function(getattr, (self.known[self.part.reads[0]], "device"))
        return self._device

    def _size(self, value: fx.Node) -> Any:
        expr = value.meta["val"].node.expr
        if expr not in self.sizes:
            made = self._formula(expr)
            if made is None:
                args = fx.map_arg(value.args, lambda arg: self._of(self.program.value(arg)))
                made = self.graph.call_function(value.target, args)  # type: ignore[arg-type]
            self.sizes[expr] = made
        return self.sizes[expr]

    def _formula(self, expr: Any) -> Any:
        """A size from the shapes of what is known, or None where it is no plain formula of them."""
        if expr in self.sizes:
            return self.sizes[expr]
        if expr.is_Integer:
            return int(expr)
        for value, node in self.known.items():
            if is_tensor(value):
                for axis, size in enumerate(value.meta["val"].shape):
                    if isinstance(size, torch.SymInt) and size.node.expr == expr:
                        return self.graph.call_function(aten.sym_size.int, (node, axis))
        kind = type(expr).__name__
        if expr.is_Symbol:
            raise ConfigError(
                f"The part behind a cut needs to know how many {self.program.symbols.get(expr, expr)} a row has, "
                "which no tensor that crosses tells."
            )
        if kind not in _FORMULAS:
            return None
        parts = [self._formula(arg) for arg in expr.args]
        if any(part is None for part in parts):
            return None
        made = parts[0]
        for part in parts[1:]:
            made = self.graph.call_function(_FORMULAS[kind], (made, part))
        return made


def _is_size(program: Program, node: fx.Node) -> bool:
    """Whether a node is a number that follows from sizes of the input alone."""
    if not is_number(node):
        return False
    number = node.meta["val"]
    if not isinstance(number, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return True
    return bool(number.node.expr.free_symbols <= set(program.symbols))


def changed_weight(program: Program, node: fx.Node) -> fx.Node | None:
    """The buffer that an operation changes in place, such as a count of batches, or None."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return None
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
    for argument in schema.arguments:
        value = given.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write and value in program.weights:
            return value
    return None


def _effects_of(program: Program, found: set[fx.Node], effects: set[fx.Node]) -> list[fx.Node]:
    """Operations that change a buffer which `found` reads, or that belong to a module of which `found` runs a part."""
    read = {value for node in found for value in program.arguments(node)}
    modules = {modules_of(node) for node in found} - {()}
    return [n for n in effects if changed_weight(program, n) in read or modules_of(n) in modules]


def correspondence(one: Program, other: Program) -> Mapping[fx.Node, fx.Node]:
    """Operations of two captures of one network that are the same in forward.

    The same line of a module ran both; where a line runs in one capture alone, the operations that are left are paired
    in their order. One capture may do more than the other, such as drop whole rows while training.
    """
    found: dict[fx.Node, fx.Node] = {}
    for by_line in (True, False):
        taken = set(found.values())
        places = {place: n for n, place in _places([n for n in other.nodes if n not in taken], by_line)}
        rest = _places([n for n in one.nodes if n not in found], by_line)
        found |= {node: places[place] for node, place in rest if place in places}
    same = {node: other.value(partner) for node, partner in found.items()}
    return same | {node: other.inputs[name] for name, node in one.inputs.items()}


def _places(nodes: Sequence[fx.Node], by_line: bool) -> list[tuple[fx.Node, tuple[Any, ...]]]:
    counts: dict[tuple[Any, ...], int] = {}
    places = []
    for node in nodes:
        key = (modules_of(node), str(node.target), _line(node) if by_line else None)
        counts[key] = counts.get(key, 0) + 1
        places.append((node, (*key, counts[key])))
    return places


def _line(node: fx.Node) -> tuple[str, ...] | None:
    """File and number of the line of forward that ran an operation; torch's own lines do not count."""
    lines = [found for found in _LINE.findall(node.meta.get("stack_trace") or "") if not found[0].startswith(_TORCH)]
    return lines[-1] if lines else None
