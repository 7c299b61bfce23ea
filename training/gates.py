"""Learned gates: a small network at each early exit that says whether to stop there.

A gate sees what its exit says of the classes: the probabilities, and the largest of them on a logarithmic scale, from
which maximum, margin and doubt follow. So it fits any exit of any network, and costs next to nothing. In training it
weighs its exit's answer against the later ones (`training.methods.gated`); at inference the criterion `gate` compares
its sigmoid with a threshold.

Tensor names carry their axes: B rows of a batch, C classes, D features.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.network import MultiExitNetwork

_HIDDEN = 16
_LARGEST = 3  # probabilities that count by themselves
_FLOOR = -12.0  # of a logarithm of a probability


class ExitGate(nn.Module):
    """Two products on an exit's class probabilities.

    Args:
        classes: C, of the exit's logits.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.largest = min(_LARGEST, classes)
        self.hidden = nn.Linear(classes + self.largest, _HIDDEN)
        self.product = nn.Linear(_HIDDEN, 1)

    def forward(self, logits_BC: Tensor) -> Tensor:
        """The logit [B] of stopping here."""
        log_BC = F.log_softmax(logits_BC.float(), dim=1)
        largest_BD = log_BC.topk(self.largest, dim=1).values.clamp(min=_FLOOR)
        hidden_BD = F.relu(self.hidden(torch.cat([log_BC.exp(), largest_BD], dim=1)))
        gate_B: Tensor = self.product(hidden_BD).squeeze(1)
        return gate_B


def add_gates(network: MultiExitNetwork) -> None:
    """Give every early exit of a network a gate, with random weights; one that has a gate keeps it."""
    parts = list(network.parts)
    for stage in network.exits[:-1]:
        if parts[stage].gate is None:
            parts[stage] = replace(parts[stage], gate=ExitGate(len(network.classes)))
    network.set_parts(parts)
