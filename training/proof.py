"""Check that a network that was cut equals the whole: |a - b| <= 1e-4 * max(1, max |a|) in float32."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from training.example import Example
from training.network import MultiExitNetwork, StageWithExit
from training.tracing import first_line, in_mode, logits_in

TOLERANCE = 1e-4


def check_equal(network: MultiExitNetwork, model: nn.Module, example: Example, *, softmax: bool = False) -> None:
    """Run the stages in a chain and the network as it was, on one row, on several, and on shorter rows.

    Args:
        network: in evaluation mode.
        model: what it was made of.
        example: what both take.
        softmax: whether the network's own softmax was left out.

    Raises:
        ConfigError: when the last exit differs, or an exit returns anything but logits [B, K].
    """
    for batch in _batches(example):
        args, kwargs = batch.arguments
        with in_mode(model, training=False), torch.no_grad():
            try:
                whole = logits_in(model(*args, **kwargs))
            except Exception as error:  # whatever forward raises
                sizes = ", ".join(f"{size} {symbol}" for symbol, size in batch.sizes().items())
                raise ConfigError(f"The network does not take rows of {sizes or 1}: {first_line(error)}") from None
            chained = chain(network, batch.tensors)
        for number, logits in enumerate(chained):
            wanted = (len(whole), len(network.classes))
            if tuple(logits.shape) != wanted:
                raise ConfigError(f"Exit {number} returns {list(logits.shape)}. It must return logits {list(wanted)}.")
        last = chained[-1].softmax(1) if softmax else chained[-1]
        gap = float((whole - last).abs().max())
        if not gap <= TOLERANCE * max(1.0, float(whole.abs().max())):
            raise ConfigError(
                f"The stages together differ from the network by {gap:.2g}: its forward depends on something else "
                "than its inputs and weights, such as random numbers, a counter or the number of rows."
            )


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
