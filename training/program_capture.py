"""The capture of a program that was exported before, such as one that `torch.export.save` wrote.

It holds what the network does in one mode. While training, its batch norms and dropouts do what they do then;
nothing else that differs between the modes is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from common.errors import ConfigError
from training.body import CapturedPart
from training.capture import Capture, constants_of, limits_of
from training.example import BATCH, ROWS, TOKENS, Example
from training.program import in_serving, program_to_logits
from training.slices import graph_of, slice_of
from training.tracing import quiet

NO_TRAINING = "a saved program holds one mode"


def capture_program(exported: ExportedProgram, inputs: Sequence[str] | None = None) -> Capture:
    """Read an exported program that takes any number of rows; `inputs` are other names for its inputs.

    Raises:
        ConfigError: when its number of rows is fixed, or it holds no example.
    """
    example = _example(exported)
    example = example if inputs is None else example.called(inputs)
    for node in exported.graph.nodes:
        node.target, node.args = in_serving(node.target, node.args)
    program = program_to_logits(exported, example, "serve")
    if program.in_place:
        with quiet():
            exported = exported.run_decompositions({})
        program = program_to_logits(exported, example, "serve")
    tensors: dict[str, Tensor] = {name: _own(value) for name, value in exported.state_dict.items()}
    signature = exported.graph_signature
    buffers = {name: exported.constants[name] for name in signature.buffers if name in exported.constants}
    return Capture(
        example=example,
        serve=program,
        train=None,
        no_train=NO_TRAINING,
        tensors={**tensors, **buffers, **constants_of(exported, "serve")},
        kept=frozenset(tensors),
        limits=limits_of(exported, program),
    )


class WholeProgram(nn.Module):
    """A captured network as one module, in the mode it was captured in."""

    def __init__(self, captured: Capture) -> None:
        super().__init__()
        program = captured.serve
        given = tuple(program.inputs.values())
        part = slice_of(program, program.outputs, given)
        graph = graph_of(part, given)
        self.part = CapturedPart(
            graph,
            graph,
            tensors={name: captured.tensors[name] for name in part.weights},
            kept=captured.kept,
            parts={str(node.target): inner for node, inner in program.parts.items()},
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        """The logits that the program returns."""
        return self.part(*inputs)[0]  # type: ignore[no-any-return]


def _own(tensor: Tensor) -> Tensor:
    """A parameter that can be trained, whatever state it was saved in; buffers stay buffers."""
    return nn.Parameter(tensor.detach()) if isinstance(tensor, nn.Parameter) else tensor.detach()


def _example(exported: ExportedProgram) -> Example:
    """The example that the program was exported with; its inputs are called as in the program."""
    if exported.example_inputs is None:
        raise ConfigError("The program holds no example. Save it with torch.export.save, which keeps it.")
    args, kwargs = exported.example_inputs
    values: list[Any] = [*args, *(kwargs[name] for name in _keywords(exported))]
    nodes = {node.name: node for node in exported.graph.nodes}
    specs = [s for s in exported.graph_signature.input_specs if s.kind == InputKind.USER_INPUT]
    names = [spec.arg.name for spec in specs]
    if len(names) != len(values) or not all(isinstance(value, Tensor) for value in values):
        raise ConfigError("The program takes something else than tensors. It must take one tensor or several.")
    symbols = _symbols([nodes[name] for name in names])
    shapes = {name: tuple(_size(size, symbols) for size in nodes[name].meta["val"].shape[1:]) for name in names}
    tensors = dict(zip(names, values, strict=True))
    return Example(tensors=tensors, shapes=shapes).rows(ROWS)


def _keywords(exported: ExportedProgram) -> Sequence[str]:
    spec: Any = exported.call_spec.in_spec
    return list(spec.child(1).context)


def _symbols(inputs: Sequence[fx.Node]) -> dict[Any, str]:
    """Names for the sizes that may differ: the first axis is the row, other symbols are lengths of rows."""
    found: dict[Any, str] = {}
    for node in inputs:
        first, *rest = node.meta["val"].shape
        if not isinstance(first, torch.SymInt):
            raise ConfigError(
                f"The program takes exactly {first} rows of {node.name!r}. Export it with dynamic_shapes that leave "
                "the first axis of every input open."
            )
        found.setdefault(first.node.expr, BATCH)
        for size in rest:
            if isinstance(size, torch.SymInt) and size.node.expr not in found:
                lengths = sum(name != BATCH for name in found.values())
                found[size.node.expr] = TOKENS if lengths == 0 else f"length{lengths}"
    return found


def _size(size: Any, symbols: dict[Any, str]) -> int | str:
    return symbols[size.node.expr] if isinstance(size, torch.SymInt) else int(size)
