"""Put exits on any network: cut it into stages, and end every stage with an exit head."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from calibration.data.checks import some
from common.errors import ConfigError
from common.manifest import ImageSpec
from training.argument import ArgumentError
from training.assembly import Assembly, Nothing, assemble
from training.body import OneTensor
from training.choice import At, choose
from training.cost import costs, dear_heads
from training.cuts import Places, captured_with, places_of
from training.example import Given, Shapes
from training.heads import Activation, HeadSettings, TokenPool, make_head
from training.layout import features_last
from training.masks import Mask, buckets_for, computed_buckets, find_mask
from training.network import MultiExitNetwork, StagePart
from training.places import MAX_TENSORS, Cut
from training.proof import check_equal, check_rows_apart
from training.tracing import check_runs

_SIDE = 0.1  # of the trunk's FLOPs: what less was computed for, and the trunk does not follow from, is a side branch
Head = str | HeadSettings | nn.Module
Heads = Head | Sequence[Head]


def add_exits(
    model: nn.Module | ExportedProgram,
    example: Given | None,
    at: At,
    *,
    head: Heads = "auto",
    shapes: Shapes | None = None,
    inputs: Sequence[str] | None = None,
    buckets: Mapping[str, Sequence[int]] | None = None,
    mask: str | None = None,
    classes: Sequence[str] | None = None,
    image: ImageSpec | None = None,
    max_tensors: int = MAX_TENSORS,
) -> MultiExitNetwork:
    """Cut a classifier into stages and put exit heads on them.

    The stages are parts of the network itself: they share its parameters and buffers, so training the result
    trains the network. Its own classifier becomes the last exit. In training mode the stages do what the network
    does in training mode (batch norm, dropout).

    Args:
        model: takes one or several tensors whose first axis is the row, and returns logits [B, K]. A module, or a
            program of `torch.export`, which trains with its batch norms and dropouts.
        example: a batch that it takes; one tensor, several, or by argument name. None for a program: it has one.
        at: names of cuts or modules and shares of the FLOPs (0..1), or the number of exits; see `offramp cuts`.
        head: kind of every exit head ("auto", "linear", "pool", "conv", "tokens") or its settings, or a list with
            one for each cut, where a module of your own may stand that makes logits of the activation.
        shapes: row shapes by input name, with a symbol such as "tokens" where rows differ in length; left out,
            see `training.example.example_of`.
        inputs: names of the input tensors in forward's order, instead of its arguments'.
        buckets: lengths that rows are filled up to, by symbol; left out, doubling up to the longest row.
        mask: the input that tells real tokens from filling; left out, the only one that is bool or is called so.
        classes: names; left out, "0", "1", ...
        image: how a door turns an image file into the input.
        max_tensors: how many tensors may cross a cut.

    Returns:
        The network with exits, in evaluation mode.

    Raises:
        ConfigError: when the network cannot be captured or cut there, or an argument does not fit it.
    """
    model, captured = captured_with(model, example, shapes, inputs)
    count = _count_classes(check_runs(model, captured.example), classes)
    places = places_of(captured, max_tensors=max_tensors)
    return build_exits(
        model,
        places,
        choose(places, at),
        head=head,
        buckets=buckets,
        mask=mask,
        classes=tuple(classes or map(str, range(count))),
        image=image,
    )


def build_exits(
    model: nn.Module,
    places: Places,
    cuts: Sequence[Cut],
    *,
    head: Heads,
    buckets: Mapping[str, Sequence[int]] | None,
    mask: str | None,
    classes: Sequence[str],
    image: ImageSpec | None,
) -> MultiExitNetwork:
    """`add_exits` at chosen cuts of a network whose places are known."""
    example = places.captured.example
    found = find_mask(example, mask)
    assembly = assemble(places, cuts)
    early = [
        _head(places, assembly, number, wanted, found, len(classes))
        for number, wanted in enumerate(_each(head, len(cuts)))
    ]
    stages = [
        StagePart(
            body=body.module,
            reads=body.reads,
            writes=body.writes,
            head=early[number][0],
            head_reads=early[number][1],
        )
        for number, body in enumerate(assembly.bodies[:-1])
    ]
    last, classifier = assembly.bodies[-1], assembly.classifier
    stages.append(
        StagePart(
            body=last.module if last.writes else Nothing(),
            reads=last.reads if last.writes else (),
            writes=last.writes,
            head=OneTensor(classifier.module),
            head_reads=classifier.reads,
        )
    )
    program = places.captured.serve
    lengths = buckets_for(example, buckets, places.captured.limits)
    network = MultiExitNetwork(
        stages,
        inputs=example.specs(found.pads if found is not None else {}),
        classes=classes,
        image=image,
        buckets=lengths | computed_buckets(program, assembly.names, lengths),
        sample=example.tensors,
        shapes={name: program.row_shape(value) or () for value, name in assembly.names.items()},
    ).eval()
    check_equal(network, model, example, softmax=assembly.softmax)
    check_rows_apart(network, example)
    for note in (*assembly.notes, *dear_heads(costs(network))):
        warnings.warn(note, stacklevel=3)
    return network


def _head(
    places: Places, assembly: Assembly, number: int, wanted: Head, mask: Mask | None, classes: int
) -> tuple[nn.Module, tuple[str, ...]]:
    """The head of an early exit, and what it reads."""
    value = _activation(places, assembly.crossing[number])
    reads = [assembly.names[value]]
    if isinstance(wanted, nn.Module):
        return wanted, tuple(reads)
    settings = HeadSettings(kind=wanted) if isinstance(wanted, str) else wanted
    if number == 0:
        settings = replace(settings, cascade=False)
    program = places.captured.serve
    shape = program.row_shape(value) or ()
    last = features_last(program, value)
    tokens = shape[:1] if last else shape[1:]
    masked = mask is not None and len(shape) == 2 and tokens == places.captured.example.shapes[mask.name]
    real = mask.real if mask is not None and masked else None
    made = make_head(settings, Activation(shape=shape, features_last=last, mask=real), classes)
    made.to(value.meta["val"].dtype)
    if isinstance(made.features, TokenPool) and masked and mask is not None and made.features.token != "first":
        reads.append(mask.name)
    if settings.cascade:
        reads.append(f"logits{number - 1}")
    return made, tuple(reads)


def _activation(places: Places, crossing: Sequence[fx.Node]) -> fx.Node:
    """What an exit head reads of the tensors that cross: of those of floats with the fewest axes, the last made.

    Inside attention that is the stream, and not the queries or keys with their axis of heads. An input that only
    passes, and what hardly anything was computed for beside the trunk, such as a second input's own features, tell
    less than the trunk does, however few their axes.
    """
    floats = [value for value in crossing if value.meta["val"].is_floating_point()]
    if not floats:
        raise ConfigError("No tensor of floats crosses the cut, so that no exit head can be put there.")
    inputs = set(places.flow.program.inputs.values())
    behind = {value: places.flow.behind(value) for value in floats}
    work = {value: places.flow.work(values) for value, values in behind.items()}
    trunk = max(floats, key=lambda value: (work[value], places.flow.made[value]))
    tell = [
        value
        for value in floats
        if value is trunk or work[value] >= _SIDE * work[trunk] > 0 or value in behind[trunk] - inputs
    ]
    return max(tell, key=lambda value: (-value.meta["val"].ndim, places.flow.made[value]))


def _each(head: Heads, count: int) -> list[Head]:
    if isinstance(head, str | HeadSettings):
        return [head] * count
    if isinstance(head, nn.Module):
        if count > 1:
            raise ArgumentError("head", "is one module for several cuts. Give a list with a module for each cut.")
        return [head]
    if len(head) != count:
        raise ArgumentError("head", f"lists {len(head)} heads. It must be one for each of {count} cuts.")
    return list(head)


def _count_classes(logits: Tensor, classes: Sequence[str] | None) -> int:
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.is_floating_point():
        raise ConfigError(
            f"The network returns {str(logits.dtype)[6:]} {list(logits.shape)}. A classifier returns float logits "
            "[rows, classes] with at least 2 classes."
        )
    count = int(logits.shape[1])
    if classes is not None and len(classes) != count:
        raise ArgumentError(
            "classes", f"are {len(classes)} names ({some(classes)}). The network returns {count} logits."
        )
    return count
