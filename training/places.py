"""The places where a program can be cut.

A cut lies between two operations of forward. It is legal where what must be known behind it is a few tensors
with an axis for the rows: then rows can be compacted, coded and sent. Between two operations that cost
something (a convolution, a product) all places are worth the same, so the one where the fewest tensors and
bytes cross stands for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor, fx

from common.manifest import DTYPES
from training.flow import Flow
from training.modules import Ends, module_ends, modules_of
from training.program import is_tensor

MAX_TENSORS = 8


@dataclass(frozen=True, kw_only=True)
class CrossingTensor:
    """A tensor that crosses a cut."""

    name: str  # of the operation that makes it
    dtype: str
    shape: tuple[int | str, ...]  # without the batch axis
    bytes: int  # per row, uncoded, at the example's sizes


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A legal cut. FLOPs and bytes are per row; parameters that both sides read count on both."""

    name: str  # of the module that ends there, or of the operation
    also: tuple[str, ...]  # other modules that end there
    position: int  # of the last operation in front of it
    tensors: tuple[CrossingTensor, ...]

    flops_before: int
    flops_after: int
    parameters_before: int
    parameters_after: int

    @property
    def bytes(self) -> int:
        """Bytes that cross, per row, uncoded."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def share(self) -> float:
        """Share of the FLOPs in front of the cut, 0..1."""
        return self.flops_before / (self.flops_before + self.flops_after)


@dataclass(frozen=True, kw_only=True)
class Closed:
    """A place where the network cannot be cut."""

    names: tuple[str, ...]  # modules that end there
    position: int
    reason: str


def legal_cuts(
    flow: Flow, tensors: Mapping[str, Tensor], max_tensors: int, *, open_end: bool
) -> tuple[tuple[Cut, ...], tuple[Closed, ...]]:
    """The cuts of a program, one at most between two operations that cost something.

    Args:
        flow: of the program.
        tensors: parameters and buffers that it reads, by name.
        max_tensors: how many tensors may cross.
        open_end: whether the program goes on behind its last operation, so that a cut may lie there.
    """
    cuts: list[Cut] = []
    closed: list[Closed] = []
    ends = module_ends(flow)
    taken: set[str] = set()
    for positions in _equal_places(flow, open_end):
        names = ends.between(positions[0], positions[-1])
        problems = {at: _problem(flow, at, max_tensors) for at in positions}
        free = [at for at in positions if problems[at] is None]
        if not free:
            best = min(positions, key=lambda at: len(flow.crossing(at)))
            closed.append(Closed(names=names, position=best, reason=problems[best] or ""))
            continue
        best = min(free, key=lambda at: (len(flow.crossing(at)), _bytes(flow, at), -_axes(flow, at), -at))
        name = _name(flow, ends, positions, best, taken)
        taken.add(name)
        cuts.append(_cut(flow, tensors, best, name, tuple(other for other in names if other != name)))
    return tuple(cuts), tuple(closed)


def _equal_places(flow: Flow, open_end: bool) -> Iterator[list[int]]:
    """Positions with the same FLOPs in front of them, where there are FLOPs on both sides."""
    done, total = 0, sum(flow.flops)
    before: list[int] = []
    for flops in flow.flops:
        done += flops
        before.append(done)
    for value, group in groupby(range(len(before)), key=before.__getitem__):
        if value > 0 and (open_end or value < total):
            yield list(group)


def _problem(flow: Flow, position: int, max_tensors: int) -> str | None:
    """Why no cut may lie behind a position, or None."""
    values = flow.crossing(position)
    for value in values:
        if not is_tensor(value):
            return "a number that is computed from the data would have to cross"
        shape = flow.program.row_shape(value)
        if shape is None:
            sizes = ", ".join(str(flow.program.size(size)) for size in value.meta["val"].shape)
            return f"a tensor of shape [{sizes}] would have to cross, and none of its axes counts the rows alone"
        if _dtype(value) not in DTYPES:
            return f"a tensor of type {_dtype(value)} would have to cross"
    if not values:
        return "nothing that depends on the input crosses"
    if len(values) > max_tensors:
        return f"{len(values)} tensors would have to cross, and at most {max_tensors} may"
    return None


def _cut(flow: Flow, tensors: Mapping[str, Tensor], position: int, name: str, also: tuple[str, ...]) -> Cut:
    front, back = slice(position + 1), slice(position + 1, None)
    return Cut(
        name=name,
        also=also,
        position=position,
        tensors=tuple(
            CrossingTensor(
                name=value.name,
                dtype=_dtype(value),
                shape=flow.program.row_shape(value) or (),
                bytes=flow.row_bytes[value],
            )
            for value in flow.crossing(position)
        ),
        flops_before=sum(flow.flops[front]),
        flops_after=sum(flow.flops[back]),
        parameters_before=_parameters(tensors, flow.weights[front]),
        parameters_after=_parameters(tensors, flow.weights[back]),
    )


def _name(flow: Flow, ends: Ends, positions: Sequence[int], best: int, taken: set[str]) -> str:
    """The outermost module with work in it that ends here, else the last operation, behind its module's name."""
    for name in ends.between(positions[0], positions[-1]):
        if name not in taken:
            return name
    node = next(node for node in reversed(flow.program.nodes[: best + 1]) if is_tensor(node))
    return ".".join((*modules_of(node)[-1:], node.name))


def _bytes(flow: Flow, position: int) -> int:
    return sum(flow.row_bytes[value] for value in flow.crossing(position))


def _axes(flow: Flow, position: int) -> int:
    """Axes of what crosses: [C, H, W] tells an exit head more than the same values in one line."""
    return max(min(int(value.meta["val"].ndim), 4) for value in flow.crossing(position))


def _parameters(tensors: Mapping[str, Tensor], weights: Sequence[frozenset[str]]) -> int:
    names: frozenset[str] = frozenset().union(*weights)
    held = {id(tensors[name]): tensors[name] for name in names}
    return sum(int(tensor.numel()) for tensor in held.values())


def _dtype(value: fx.Node) -> str:
    return str(value.meta["val"].dtype).removeprefix("torch.")
