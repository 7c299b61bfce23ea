"""A network as a straight list of operations, taken by `torch.export`.

Operations are ATen operators in the order in which forward runs them. Tensors that are changed in place are
rewritten so that every value is made once; operations that only hand a value on, such as dropout while
serving, become aliases of that value; checks that guard the trace are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from common.errors import ConfigError
from training.example import BATCH, Example
from training.tracing import logits_in

aten = torch.ops.aten

_SAME_OVERLOAD = {aten.bernoulli_.float: aten.bernoulli.p}  # in place -> not, where the names differ
_HANDS_ON = {aten.alias.default, aten.lift_fresh_copy.default, aten.lift_fresh.default, aten.clone.default}
_HANDS_ON |= {aten.contiguous.default}
_ONLY_SERVING = {aten.detach.default, aten.to.dtype}  # hand a value on while serving, not while training
_DRAWS = ("rand", "bernoulli", "normal", "uniform", "multinomial", "poisson", "exponential")
_MOMENTUM = 0.1  # of a batch norm that keeps a plain average, whose serving operation says 0
_DROPOUTS = {aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default}
_DROPOUTS |= {aten.feature_alpha_dropout.default}


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """The operations of a network in one mode, and where its tensors come from."""

    nodes: tuple[fx.Node, ...]  # in order, without inputs, weights and output
    inputs: Mapping[str, fx.Node]  # tensor name -> placeholder
    weights: Mapping[fx.Node, str]  # placeholder -> name in `Capture.tensors`
    outputs: tuple[fx.Node, ...]
    alias: Mapping[fx.Node, fx.Node]  # what only hands a value on -> that value
    symbols: Mapping[Any, str]  # symbol of sympy -> "batch", "tokens", ...
    parts: Mapping[fx.Node, fx.GraphModule]  # get_attr node -> graph that an operator such as no_grad's runs
    in_place: bool  # whether some tensor is still changed through a view of it

    def value(self, node: fx.Node) -> fx.Node:
        """The node that makes the value which `node` stands for."""
        while node in self.alias:
            node = self.alias[node]
        return node

    def arguments(self, node: fx.Node) -> Iterator[fx.Node]:
        """The values that `node` reads, each once."""
        seen: dict[fx.Node, None] = {}
        for arg in node.all_input_nodes:
            seen[self.value(arg)] = None
        return iter(seen)

    def row_axis(self, node: fx.Node) -> int | None:
        """The axis that counts rows, which need not be the first; None where none does that alone."""
        sizes = [self.size(size) for size in node.meta["val"].shape]
        counting = [axis for axis, size in enumerate(sizes) if isinstance(size, str) and BATCH in size.split("_")]
        return counting[0] if len(counting) == 1 and sizes[counting[0]] == BATCH else None

    def row_shape(self, node: fx.Node) -> tuple[int | str, ...] | None:
        """Shape without the axis of the rows, symbols by name; None where there is no such axis."""
        rows = self.row_axis(node)
        sizes = enumerate(node.meta["val"].shape)
        return None if rows is None else tuple(self.size(size) for axis, size in sizes if axis != rows)

    def size(self, size: Any) -> int | str:
        """A size as a number or a name; computed sizes are named by their formula."""
        if not isinstance(size, torch.SymInt):
            return int(size)
        expr = size.node.expr
        if expr in self.symbols:
            return self.symbols[expr]
        named = str(expr.subs({s: type(s)(n, integer=True, positive=True) for s, n in self.symbols.items()}))
        return int(named) if named.isdigit() else "".join(c if c.isalnum() else "_" for c in named).strip("_")


def program_of(exported: ExportedProgram, example: Example, mode: str, prefix: str = "") -> Program:
    """Read an exported program.

    Args:
        exported: by `torch.export.export`; its graph is changed.
        example: that it was exported with.
        mode: "serve" or "train"; goes into the names of constants, since every capture has its own.
        prefix: of parameter and buffer names, such as "model.", that is left out.

    Raises:
        ConfigError: when the program holds what no stage can hold.
    """
    graph = exported.graph
    placeholders = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    weights: dict[fx.Node, str] = {}
    user: list[fx.Node] = []
    for spec in exported.graph_signature.input_specs:
        node = placeholders[spec.arg.name]
        if spec.kind == InputKind.USER_INPUT:
            user.append(node)
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            weights[node] = str(spec.target).removeprefix(prefix)
        elif spec.kind == InputKind.CONSTANT_TENSOR:
            weights[node] = f"constants.{mode}_{str(spec.target).replace('.', '_')}"
        else:
            raise ConfigError(f"The network holds {spec.target}, which is no tensor. It cannot be packed.")
    inputs = dict(zip(_order(exported, example), user, strict=True))
    (output,) = (node for node in graph.nodes if node.op == "output")
    _drop_checks(graph)
    in_place = _replace_in_place(graph, set(weights))
    nodes = tuple(node for node in graph.nodes if node.op not in ("placeholder", "output"))
    return Program(
        nodes=nodes,
        inputs=inputs,
        weights=weights,
        outputs=tuple(node for node in output.all_input_nodes),
        alias={node: node.args[0] for node in nodes if _hands_on(node, mode)},
        symbols=_symbols(inputs, example),
        parts={node: exported.graph_module.get_submodule(str(node.target)) for node in nodes if node.op == "get_attr"},
        in_place=in_place,
    )


def program_to_logits(exported: ExportedProgram, example: Example, mode: str) -> Program:
    """As `program_of`, up to the logits: whatever else the network returns is left out."""
    program = program_of(exported, example, mode)
    (output,) = (node for node in exported.graph.nodes if node.op == "output")
    specs = exported.graph_signature.output_specs
    returned = [a for a, spec in zip(output.args[0], specs, strict=True) if spec.kind == OutputKind.USER_OUTPUT]
    logits = logits_in(pytree.tree_unflatten(returned, exported.call_spec.out_spec), fx.Node) or program.outputs[0]
    needed: set[fx.Node] = set()
    pending = [logits, *(node for node in program.nodes if _changes_first(node))]
    while pending:
        node = pending.pop()
        if node not in needed:
            needed.add(node)
            pending.extend(node.all_input_nodes)
    return replace(program, nodes=tuple(node for node in program.nodes if node in needed), outputs=(logits,))


def as_it_trains(program: Program) -> Program:
    """A capture of serving in which what only matters while training is there again, such as dropout."""
    alias = {node: value for node, value in program.alias.items() if node.target not in _DROPOUTS | _ONLY_SERVING}
    return replace(program, alias=alias)


def in_training(target: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The operation that batch norm or dropout is while training; any other is returned as it is."""
    if target in _DROPOUTS:
        return target, (*args[:2], True)
    if target is aten.batch_norm.default and args[3] is not None:
        return target, (*args[:5], True, args[6] or _MOMENTUM, *args[7:])
    if target is aten._native_batch_norm_legit_no_training.default:
        return aten.native_batch_norm.default, (*args[:5], True, args[5] or _MOMENTUM, *args[6:])
    return target, args


def in_serving(target: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The operation that batch norm or dropout is while serving; any other is returned as it is."""
    if target in _DROPOUTS:
        return target, (*args[:2], False)
    if target is aten.batch_norm.default:
        return target, (*args[:5], args[3] is None, *args[6:])
    return target, args


def runs_once(node: fx.Node) -> bool:
    """Whether a second run would give another result or leave another state: random numbers, statistics."""
    batch_norms = (aten.batch_norm.default, aten.native_batch_norm.default)
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) or node.target in batch_norms


def draws(node: fx.Node) -> bool:
    """Whether an operation makes random numbers, whatever its arguments are; dropout does not while serving."""
    seeded = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return seeded and str(node.target).removeprefix("aten.").startswith(_DRAWS)


def _order(exported: ExportedProgram, example: Example) -> list[str]:
    """Names of the inputs in the order of the program's placeholders."""
    spec: Any = exported.call_spec.in_spec
    names = dict(zip(example.keywords, example.tensors, strict=False))
    return [names[keyword] for keyword in spec.child(1).context] if example.keywords else list(example.tensors)


def _symbols(inputs: Mapping[str, fx.Node], example: Example) -> dict[Any, str]:
    found: dict[Any, str] = {}
    for name, node in inputs.items():
        for size, meant in zip(node.meta["val"].shape, (BATCH, *example.shapes[name]), strict=True):
            if isinstance(size, torch.SymInt) and isinstance(meant, str) and size.node.expr.is_Symbol:
                found[size.node.expr] = meant
    return found


def _drop_checks(graph: fx.Graph) -> None:
    """Leave out assertions about types, ranges and guards, and what only they needed."""
    for node in reversed(graph.nodes):
        name = str(node.target)
        checks = ("_assert", "sym_constrain", "_guards_fn")
        if node.op not in ("placeholder", "output") and any(word in name for word in checks):
            graph.erase_node(node)
    sizes = (node for node in reversed(graph.nodes) if node.op == "call_function" and not is_tensor(node))
    for node in list(sizes):
        if not node.users and is_number(node):
            graph.erase_node(node)


def _replace_in_place(graph: fx.Graph, weights: set[fx.Node]) -> bool:
    """Rewrite operations that change their first argument; return whether some are left."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    base: dict[fx.Node, fx.Node] = {}
    families: dict[fx.Node, list[fx.Node]] = {}
    left = False
    for node in list(graph.nodes):
        root = node
        if _views(node) and isinstance(node.args[0], fx.Node):
            root = base.get(node.args[0], node.args[0])
        changed = node.args[0] if _changes_first(node) and isinstance(node.args[0], fx.Node) else None
        base[node] = root
        families.setdefault(root, []).append(node)
        if changed is None or changed in weights:
            continue
        family = families[base[changed]]
        plain = _not_in_place(node.target)
        others = any(
            order[user] > order[node] for member in family if member not in (changed, node) for user in member.users
        )
        if plain is None or others:
            left = True
            continue
        node.target = plain
        for user in [user for user in changed.users if order[user] > order[node]]:
            user.replace_input_with(changed, node)
        base[node] = node
        families[node] = [node]
    return left


def _changes_first(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable) and _writes(schema.arguments[0])


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and bool(argument.alias_info.is_write)


def _views(node: fx.Node) -> bool:
    """Whether the result may share memory with the first argument."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.arguments or not node.args:
        return False
    return schema.arguments[0].alias_info is not None or node.target in _DROPOUTS | _HANDS_ON | _ONLY_SERVING


def _not_in_place(target: Any) -> Any:
    if target in _SAME_OVERLOAD:
        return _SAME_OVERLOAD[target]
    packet, _, overload = str(target).removeprefix("aten.").partition(".")
    if not str(target).startswith("aten.") or not packet.endswith("_"):
        return None
    return getattr(getattr(aten, packet[:-1], None), overload, None)


def _hands_on(node: fx.Node, mode: str) -> bool:
    if not node.args or not isinstance(node.args[0], fx.Node):
        return False
    if node.target in _DROPOUTS:
        return node.args[2] is False or node.args[1] in (0, 0.0)
    if node.target in _ONLY_SERVING and mode == "serve":
        return is_tensor(node.args[0]) and bool(node.args[0].meta["val"].dtype == node.meta["val"].dtype)
    return node.target in _HANDS_ON


def is_tensor(node: fx.Node) -> bool:
    """Whether the node makes one tensor."""
    return isinstance(node.meta.get("val"), Tensor)


def is_number(node: fx.Node) -> bool:
    """Whether the node makes a size or another single number, not a tensor."""
    return isinstance(node.meta.get("val"), (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool))
