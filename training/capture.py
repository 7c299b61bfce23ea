"""Capture a network twice, as it serves and as it trains.

`torch.export` follows forward once with tensors that have no values, so the capture holds what forward does for
any rows. Batch norm and dropout do other things while training: the second capture keeps that. Both captures
share the network's own parameters and buffers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from training.example import Example
from training.program import Program, program_to_logits
from training.refusal import refusal, why
from training.tracing import check_runs, export_in_mode, in_mode, quiet


@dataclass(frozen=True, kw_only=True, eq=False)
class Capture:
    """A network as operations, in both modes."""

    example: Example
    serve: Program
    train: Program | None  # None where training does what no capture can hold
    no_train: str = ""  # why
    tensors: Mapping[str, Tensor]  # parameters and buffers of the network itself, and constants, by name
    kept: frozenset[str]  # names of those that belong into a state dict
    limits: Mapping[str, int]  # largest number that a symbol may stand for, where the network has one


def capture(model: nn.Module, example: Example) -> Capture:
    """Capture a network.

    Raises:
        ConfigError: when it does not take the example, or does what cannot be captured, such as branching on data.
    """
    check_runs(model, example)
    if example.guessed and example.sizes() and not _takes_shorter(model, example):
        example = example.fixed()
    try:
        exported = export_in_mode(model, example, training=False)
    except Exception as error:  # tracing raises whatever forward meets
        if example.guessed and example.sizes():
            return capture(model, example.fixed())
        raise refusal(model, example, error) from None
    tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors.update(model.named_buffers(remove_duplicate=False))
    serve = program_to_logits(exported, example, "serve")
    limits = limits_of(exported, serve)
    if serve.in_place:  # torch rewrites it, at the price of operators that are less like forward's
        with quiet():
            exported = export_in_mode(model, example, training=False).run_decompositions({})
        serve = program_to_logits(exported, example, "serve")
    tensors.update(constants_of(exported, "serve"))
    train, reason = None, ""
    try:
        training = export_in_mode(model, example, training=True)
        train = program_to_logits(training, example, "train")
        tensors.update(constants_of(training, "train"))
    except Exception as error:  # as above
        reason = why(example, error)
    if train is not None and train.in_place:
        train, reason = None, "it changes a tensor through a view of it"
    return Capture(
        example=example,
        serve=serve,
        train=train,
        no_train=reason,
        tensors=tensors,
        kept=frozenset(model.state_dict(keep_vars=True)),
        limits=limits,
    )


def _takes_shorter(model: nn.Module, example: Example) -> bool:
    """Whether a network runs on shorter rows than the example's, as one of tokens does and one of columns may not."""
    args, kwargs = example.halved().arguments
    try:
        with in_mode(model, training=False), torch.no_grad():
            model(*args, **kwargs)
    except Exception:  # whatever forward raises
        return False
    return True


def constants_of(exported: ExportedProgram, mode: str) -> dict[str, Tensor]:
    """Tensors that forward holds as they are, under the names that `program_of` gives them."""
    signature = exported.graph_signature
    names = {*signature.parameters, *signature.buffers}
    return {
        f"constants.{mode}_{name.replace('.', '_')}": value
        for name, value in exported.constants.items()
        if isinstance(value, Tensor) and name not in names
    }


def limits_of(exported: ExportedProgram, program: Program) -> dict[str, int]:
    """Upper ends of the symbols' ranges, where tracing found any."""
    found: dict[str, int] = {}
    for node in program.inputs.values():
        for size in node.meta["val"].shape[1:]:
            if isinstance(size, torch.SymInt):
                bounds = exported.range_constraints.get(size.node.expr)
                upper = None if bounds is None else str(bounds.upper)  # a number, or a form of infinity
                if upper is not None and upper.isdigit() and int(upper) < 1 << 20:
                    symbol = str(program.size(size))
                    found[symbol] = min(found.get(symbol, 1 << 20), int(upper))
    return found
