"""What flows through a program: which values depend on the input, how long they are needed, what they cost.

A value that depends on weights and sizes alone never crosses a cut: every stage makes it anew. Nor does a value
that follows from the input tensors by cheap operations without weights, such as an attention mask spelt out in
floats: the input crosses instead, where that takes no more bytes, or spares rounding what stands for a mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from training.example import BATCH, Example
from training.flops import count_flops
from training.program import Program, is_number, is_tensor

_WHOLE = (torch.int32, torch.int64, torch.bool)


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow:
    """The values of a program in the order of their making. A position is the number of an operation."""

    program: Program
    made: Mapping[fx.Node, int]  # value that depends on the input -> position; inputs: -1
    used: Mapping[fx.Node, int]  # value -> position of its last use
    inputs_instead: Mapping[fx.Node, tuple[fx.Node, ...]]  # value -> the inputs that cross in its place
    flops: tuple[int, ...]  # per row, by position
    weights: tuple[frozenset[str], ...]  # names of the parameters read, by position
    row_bytes: Mapping[fx.Node, int]  # at the example's sizes

    def crossing(self, position: int) -> tuple[fx.Node, ...]:
        """The values that must be known behind a position for the rest to be computed, in order of making."""
        found: dict[fx.Node, None] = {}
        for value, at in self.made.items():
            if at <= position < self.used.get(value, -1):
                found.update(dict.fromkeys(self.inputs_instead.get(value, (value,))))
        return tuple(sorted(found, key=lambda value: (self.made[value], value.name)))

    def behind(self, value: fx.Node) -> frozenset[fx.Node]:
        """The value, and every node that it follows from."""
        found: set[fx.Node] = set()
        open_ends = [value]
        while open_ends:
            node = open_ends.pop()
            if node not in found:
                found.add(node)
                open_ends.extend(self.program.arguments(node))
        return frozenset(found)

    def work(self, nodes: frozenset[fx.Node]) -> int:
        """FLOPs of some nodes, per row."""
        return sum(flops for node, flops in zip(self.program.nodes, self.flops, strict=True) if node in nodes)


def flow_of(program: Program, tensors: Mapping[str, Tensor], example: Example) -> Flow:
    """Analyse a program; runs it once on one row of the example, to count its FLOPs."""
    flops = _flops(program, tensors, example)
    order = {node: i for i, node in enumerate(program.nodes)}
    end = len(program.nodes)
    made: dict[fx.Node, int] = dict.fromkeys(program.inputs.values(), -1)
    used: dict[fx.Node, int] = {}
    static_weights: dict[fx.Node, frozenset[str]] = {}
    weights: list[frozenset[str]] = []
    for node in program.nodes:
        reads = [value for value in program.arguments(node)]
        own = frozenset().union(*(static_weights.get(r, _own(program, tensors, r)) for r in reads))
        if node not in program.alias and _depends(node, reads, made):
            is_part = node.target.__name__ == "getitem" if hasattr(node.target, "__name__") else False
            made[node] = made[reads[0]] if is_part and reads[0] in made else order[node]
        elif node not in program.alias:
            static_weights[node] = own
            own = frozenset()
        weights.append(own if node in made else frozenset())
        for value in reads:
            used[value] = order[node]
    for node in program.outputs:
        used[program.value(node)] = end
    values = {value: at for value, at in made.items() if not isinstance(value.meta.get("val"), (tuple, list))}
    row_bytes = {value: _bytes(program, value, example) for value in values if is_tensor(value)}
    return Flow(
        program=program,
        made=values,
        used=used,
        inputs_instead=_replayed(program, values, flops, weights, row_bytes),
        flops=tuple(count if node in made else 0 for count, node in zip(flops, program.nodes, strict=True)),
        weights=tuple(weights),
        row_bytes=row_bytes,
    )


def _own(program: Program, tensors: Mapping[str, Tensor], node: fx.Node) -> frozenset[str]:
    name = program.weights.get(node)
    return frozenset({name} if name is not None and isinstance(tensors[name], nn.Parameter) else ())


def _depends(node: fx.Node, reads: list[fx.Node], made: Mapping[fx.Node, int]) -> bool:
    """Whether a value depends on the input's values; sizes do not, numbers read out of a tensor do."""
    if is_number(node) and "sym_size" in str(node.target):
        return False
    return any(value in made for value in reads)


def _replayed(
    program: Program,
    made: Mapping[fx.Node, int],
    flops: list[int],
    weights: list[frozenset[str]],
    row_bytes: Mapping[fx.Node, int],
) -> dict[fx.Node, tuple[fx.Node, ...]]:
    """Values that follow from inputs by operations without FLOPs and weights, and are better not sent."""
    sources: dict[fx.Node, frozenset[fx.Node]] = {node: frozenset({node}) for node in program.inputs.values()}
    for position, node in enumerate(program.nodes):
        reads = [value for value in program.arguments(node) if value in made]
        cheap = flops[position] == 0 and not weights[position] and node in made and is_tensor(node)
        if cheap and reads and all(value in sources for value in reads) and not _random(node):
            sources[node] = frozenset().union(*(sources[value] for value in reads))
    replayed: dict[fx.Node, tuple[fx.Node, ...]] = {}
    for value, inputs in sources.items():
        if value in inputs:
            continue
        spelt_out = value.meta["val"].is_floating_point() and all(i.meta["val"].dtype in _WHOLE for i in inputs)
        if spelt_out or row_bytes[value] >= sum(row_bytes[i] for i in inputs):
            replayed[value] = tuple(sorted(inputs, key=lambda node: node.name))
    return replayed


def _random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def row_elements(program: Program, value: fx.Node, example: Example) -> int:
    """Elements of a value per row, at the example's sizes."""
    sizes = {symbol: example.sizes().get(name, 1) for symbol, name in program.symbols.items() if name != BATCH}
    batch = {symbol: 1 for symbol, name in program.symbols.items() if name == BATCH}
    known = sizes | batch
    return math.prod(
        int(size.node.expr.subs(known)) if isinstance(size, torch.SymInt) else int(size)
        for size in value.meta["val"].shape
    )


def _bytes(program: Program, value: fx.Node, example: Example) -> int:
    try:
        return row_elements(program, value, example) * int(value.meta["val"].element_size())
    except TypeError:  # a size that only the data knows
        return 0


def _flops(program: Program, tensors: Mapping[str, Tensor], example: Example) -> list[int]:
    """FLOPs of every operation for one row of the example."""
    row = example.rows(1)
    values: dict[fx.Node, Any] = {node: row.tensors[name] for name, node in program.inputs.items()}
    values.update({node: tensors[name] for node, name in program.weights.items()})
    values.update(program.parts)
    counts: list[int] = []
    last = {value: i for i, node in enumerate(program.nodes) for value in node.all_input_nodes}
    with torch.no_grad():
        for position, node in enumerate(program.nodes):
            if node in program.parts:
                counts.append(0)
                continue
            args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)

            def run(node: fx.Node = node, args: Any = args, kwargs: Any = kwargs) -> None:
                values[node] = node.target(*args, **kwargs)  # type: ignore[operator]

            counts.append(count_flops(run))
            for value in node.all_input_nodes:
                if last[value] == position and value not in program.outputs:
                    values.pop(value, None)
    return counts
