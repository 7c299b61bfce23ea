"""Check that a network that was cut equals the whole, and that a row's answer is its own.

Logits are equal where |a - b| <= 1e-4 * max(1, max |a|) in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from calibration.apart import mixed
from common.errors import ConfigError
from training.example import Example
from training.network import MultiExitNetwork, StageWithExit
from training.tracing import first_line, in_mode, logits_in

TOLERANCE = 1e-4
_ROUGH = 1e-2  # between batches of different size: rounding differs, most of all in half precision


def check_equal(network: MultiExitNetwork, model: nn.Module, example: Example, *, softmax: bool = False) -> None:
    """Run the stages in a chain and the network as it was, on one row, on several, and on shorter rows.

    Args:
        network: in evaluation mode.
        model: what it was made of.
        example: what both take.
        softmax: whether the network's own softmax was left out.

    Raises:
        ConfigError: when the last exit differs, or the network or an exit returns anything but logits [B, K].
    """
    for batch in _batches(example):
        args, kwargs = batch.arguments
        rows = len(next(iter(batch.tensors.values())))
        wanted = [rows, len(network.classes)]
        sizes = ", ".join(f"{size} {symbol}" for symbol, size in batch.sizes().items())
        with in_mode(model, training=False), torch.no_grad():
            try:
                whole = logits_in(model(*args, **kwargs))
            except Exception as error:  # whatever forward raises
                raise ConfigError(f"The network does not take rows of {sizes or 1}: {first_line(error)}") from None
            if list(whole.shape) != wanted:
                hint = " A squeeze() without an axis takes the axis of the rows away, too." if rows == 1 else ""
                raise ConfigError(
                    f"For {rows} row{'s' if rows > 1 else ''} the network returns {list(whole.shape)}. "
                    f"It must return logits {wanted}.{hint}"
                )
            try:
                chained = chain(network, batch.tensors)
            except Exception as error:  # whatever a part of forward raises alone
                raise ConfigError(f"The stages do not take a batch of {rows}: {first_line(error)}") from None
        for number, logits in enumerate(chained):
            if list(logits.shape) != wanted:
                raise ConfigError(f"Exit {number} returns {list(logits.shape)}. It must return logits {wanted}.")
        last = chained[-1].softmax(1) if softmax else chained[-1]
        gap = _gap(whole, last)
        if not gap <= TOLERANCE:
            raise ConfigError(
                f"The stages together differ from the network by {gap:.2g}: its forward depends on something else "
                "than its inputs and weights, such as random numbers, a counter or the number of rows."
            )


def check_rows_apart(network: MultiExitNetwork, example: Example) -> None:
    """Exchange the rows beside a row, which no exit may notice; and run it alone.

    Among others the same numbers are computed in the same places, so that rounding is the same, too; alone it is not.

    Args:
        network: in evaluation mode.
        example: what it takes; the rows beside its first are made up.

    Raises:
        ConfigError: naming the first exit where a row's logits depend on the rows beside it.
    """
    itself, *crowds = example.crowds()
    with torch.no_grad():
        wanted = chain(network, itself.tensors)
        _compare(chain(network, example.rows(1).tensors), [logits[:1] for logits in wanted], _ROUGH)
        for crowd in crowds:
            try:
                found = chain(network, crowd.tensors)
            except Exception:  # what is made up may be nothing that the network takes
                continue
            _compare([logits[::2] for logits in wanted], [logits[::2] for logits in found], TOLERANCE)


def _compare(wanted: Sequence[Tensor], found: Sequence[Tensor], limit: float) -> None:
    for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
        if not (gap := _gap(one, other)) <= limit:
            raise ConfigError(mixed(number, gap))


def _gap(wanted: Tensor, found: Tensor) -> float:
    """The largest difference, in units of the largest logit, if that is above 1."""
    return float((wanted - found).abs().max()) / max(1.0, float(wanted.abs().max()))


def chain(network: MultiExitNetwork, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Logits [B, K] of every exit, stage by stage, each given only what crosses the cut before it."""
    live = {spec.name: inputs[spec.name] for spec in network.inputs}
    logits: dict[str, Tensor] = {}
    for number in range(len(network.parts)):
        stage = StageWithExit(network, number)
        made = dict(zip(stage.writes, stage(*(live[name] for name in stage.reads)), strict=True))
        if number in network.exits:
            logits[network.logits_name(number)] = made[network.logits_name(number)]
        if number < len(network.parts) - 1:
            live = {name: (live | made)[name] for name in network.crossing(number)}
    return list(logits.values())


def _batches(example: Example) -> list[Example]:
    batches = [example, example.rows(1)]
    return [*batches, example.halved()] if example.sizes() else batches
