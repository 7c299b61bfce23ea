"""Find the places where a network can be cut: capture it, follow what flows through it, list the legal cuts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from training.capture import Capture, capture
from training.example import Example
from training.flow import Flow, flow_of
from training.places import MAX_TENSORS, Closed, Cut, legal_cuts


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """A captured network with its legal cuts and the places that are closed, in order."""

    captured: Capture
    flow: Flow
    cuts: tuple[Cut, ...]
    closed: tuple[Closed, ...]

    @property
    def flops(self) -> int:
        """FLOPs of the whole network, per row."""
        return sum(self.flow.flops)


def find_places(model: nn.Module, example: Example, *, max_tensors: int = MAX_TENSORS) -> Places:
    """Capture a network and find its legal cuts.

    Raises:
        ConfigError: when the network does not take the example, or cannot be captured.
    """
    return places_of(capture(model, example), max_tensors=max_tensors)


def places_of(captured: Capture, *, max_tensors: int = MAX_TENSORS) -> Places:
    """Find the legal cuts of a captured network."""
    flow = flow_of(captured.serve, captured.tensors, captured.example)
    cuts, closed = legal_cuts(flow, captured.tensors, max_tensors, open_end=False)
    return Places(captured=captured, flow=flow, cuts=cuts, closed=closed)
