"""Parts of networks that phases train, and the phase that several ways to train begin with."""

from __future__ import annotations

from torch import nn

from training.losses import one_exit
from training.network import MultiExitNetwork
from training.phase import Phase


def early_heads(network: MultiExitNetwork) -> tuple[nn.Module, ...]:
    """The heads of all exits but the last."""
    return tuple(network.heads[str(stage)] for stage in network.exits[:-1])


def backbone(network: MultiExitNetwork) -> tuple[nn.Module, ...]:
    """The network without its early exits."""
    return (*network.bodies, network.heads[str(network.exits[-1])])


def backbone_phase(
    network: MultiExitNetwork, epochs: int, *, smoothing: float = 0.0, rate_penalty: float = 0.0
) -> Phase:
    """Train the backbone on the loss of the last exit."""
    last = len(network.exits) - 1
    loss = one_exit(last, smoothing=smoothing, rate_penalty=rate_penalty)
    return Phase(name="backbone", epochs=epochs, loss=loss, trains=backbone(network))
