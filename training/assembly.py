"""Assemble the stages of a network from the places where it was cut."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from common.errors import ConfigError
from training.body import CapturedPart
from training.capture import Capture
from training.cuts import Places
from training.places import Cut
from training.program import Program, as_it_trains, runs_once
from training.program_capture import NO_TRAINING
from training.slices import Slice, changed_weight, correspondence, graph_of, slice_of

_SOFTMAXES = ("aten.softmax.int", "aten._softmax.default")
_SOFTMAX = "The network ends with a softmax, which is left out: exits work with logits, and the softmax is theirs."


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A part of the network between two places: what it is given, reads and makes, in the serving capture."""

    given: tuple[fx.Node, ...]
    targets: tuple[fx.Node, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltPart:
    """A part as a module over named tensors."""

    module: CapturedPart
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Assembly:
    """The bodies of all stages, the network's own classifier, and what is known of the tensors between."""

    bodies: tuple[BuiltPart, ...]
    classifier: BuiltPart  # of the last stage; writes the logits
    crossing: tuple[tuple[fx.Node, ...], ...]  # per cut, in order of making
    names: Mapping[fx.Node, str]
    softmax: bool  # whether the network ends with one, which is left out
    notes: tuple[str, ...]  # what a user should know


def assemble(places: Places, cuts: Sequence[Cut]) -> Assembly:
    """Build the stages between chosen cuts.

    The last stage's body reaches up to the last legal cut behind the chosen ones; what lies behind that is the
    classifier.

    Raises:
        ConfigError: when a size is needed behind a cut that nothing that crosses tells.
    """
    flow, program = places.flow, places.captured.serve
    inputs = tuple(program.inputs.values())
    crossing = tuple(flow.crossing(cut.position) for cut in cuts)
    later = places.cuts if not cuts else [cut for cut in places.cuts if cut.position > cuts[-1].position]
    trunk = flow.crossing(later[-1].position) if later else (inputs, *crossing)[-1]
    parts = [
        Part(given=given, targets=tuple(value for value in targets if value not in given))
        for given, targets in zip((inputs, *crossing), (*crossing, trunk), strict=True)
    ]
    logits, softmax = _logits(program)
    notes = [_SOFTMAX] if softmax else []
    parts.append(Part(given=trunk, targets=(logits,)))
    names = _names(program, crossing, cuts, trunk)
    serving = [slice_of(program, part.targets, part.given) for part in parts]
    training, reason = _training(places.captured, parts)
    if reason:
        notes.append(
            f"While training, the network does what cannot be cut as it serves ({reason}): its stages train with "
            "batch norm and dropout, and without the rest of that."
        )
    built = [
        _built(places.captured, part, serve, train, names)
        for part, serve, train in zip(parts, serving, training, strict=True)
    ]
    return Assembly(
        bodies=tuple(built[:-1]),
        classifier=built[-1],
        crossing=crossing,
        names=names,
        softmax=softmax,
        notes=tuple(notes),
    )


def _training(captured: Capture, parts: Sequence[Part]) -> tuple[list[Slice], str]:
    """The same parts in the training capture, or in the serving one if need be, and then why."""
    if captured.train is None:
        reason = "" if captured.no_train == NO_TRAINING else captured.no_train
        return _from_serving(captured.serve, parts), reason
    same = correspondence(captured.serve, captured.train)
    slices: list[Slice] = []
    done: set[fx.Node] = set()
    for part in parts:
        if any(value not in same for value in (*part.given, *part.targets)):
            return _from_serving(captured.serve, parts), "other operations run there"
        try:
            found = slice_of(captured.train, [same[v] for v in part.targets], [same[v] for v in part.given])
        except ConfigError:
            return _from_serving(captured.serve, parts), "other tensors cross there"
        twice = done.intersection(found.nodes)
        if any(runs_once(node) or changed_weight(captured.train, node) is not None for node in twice):
            return _from_serving(captured.serve, parts), "random numbers or a changed buffer cross there"
        done.update(found.nodes)
        slices.append(found)
    return slices, ""


def _from_serving(program: Program, parts: Sequence[Part]) -> list[Slice]:
    program = as_it_trains(program)
    return [slice_of(program, part.targets, part.given) for part in parts]


def _built(captured: Capture, part: Part, serve: Slice, train: Slice, names: Mapping[fx.Node, str]) -> BuiltPart:
    derived = train.program is not captured.train
    partner = dict(zip(part.given, part.given, strict=True))
    if not derived:
        assert captured.train is not None
        same = correspondence(captured.serve, captured.train)
        partner = {value: same[value] for value in part.given}
    reads = tuple(value for value in part.given if value in serve.reads or partner[value] in train.reads)
    for wanted in (reads, part.given):  # sizes may be told by a tensor that is not read otherwise
        try:
            graphs = graph_of(serve, wanted), graph_of(train, [partner[v] for v in wanted], as_training=derived)
        except ConfigError:
            if wanted == part.given:
                raise
            continue
        reads = tuple(wanted)
        break
    weights = dict.fromkeys((*serve.weights, *train.weights))
    return BuiltPart(
        module=CapturedPart(
            *graphs,
            tensors={name: captured.tensors[name] for name in weights},
            kept=captured.kept,
            parts={str(n.target): g for s in (serve, train) for n, g in s.program.parts.items() if n in s.nodes},
        ),
        reads=tuple(names[value] for value in reads),
        writes=tuple(names.get(value, "logits") for value in part.targets),
    )


def _logits(program: Program) -> tuple[fx.Node, bool]:
    """The value that the network returns, or what a softmax at the very end is taken of."""
    value = program.value(program.outputs[0])
    if str(value.target) in _SOFTMAXES and value.args[1] in (1, -1) and isinstance(value.args[0], fx.Node):
        return program.value(value.args[0]), True
    return value, False


def _names(
    program: Program, crossing: Sequence[Sequence[fx.Node]], cuts: Sequence[Cut], trunk: Sequence[fx.Node]
) -> dict[fx.Node, str]:
    """Names for the tensors between stages: inputs keep theirs, others are called after the cut that they cross."""
    names = {node: name for name, node in program.inputs.items()}
    for values, cut in zip((*crossing, trunk), (*(cut.name for cut in cuts), "trunk"), strict=True):
        plain = re.sub(r"[^A-Za-z0-9._-]", "-", cut).lstrip("._-")
        new = [value for value in values if value not in names]
        for number, value in enumerate(new):
            name = plain if len(new) == 1 else f"{plain}.tensor{number}"
            while name in names.values() or name.startswith("logits"):
                name = f"at-{name}"
            names[value] = name
    return names


class Nothing(nn.Module):
    """The body of a last stage that consists of its classifier alone."""

    def forward(self) -> tuple[Tensor, ...]:
        """Make nothing."""
        return ()
