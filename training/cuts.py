"""Find the places where a network can be cut: capture it, follow what flows through it, list the legal cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.export import ExportedProgram

from common.errors import ConfigError
from training.capture import Capture, capture
from training.example import Given, Shapes, example_of
from training.flow import Flow, flow_of
from training.places import MAX_TENSORS, Closed, Cut, legal_cuts
from training.program import draws
from training.program_capture import WholeProgram, capture_program


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


def captured_with(
    model: nn.Module | ExportedProgram,
    example: Given | None,
    shapes: Shapes | None = None,
    inputs: Sequence[str] | None = None,
) -> tuple[nn.Module, Capture]:
    """A network as a module, and its capture.

    Raises:
        ConfigError: when it does not take the example, or cannot be captured.
    """
    if isinstance(model, ExportedProgram):
        captured = capture_program(model, inputs)
        model = WholeProgram(captured)
    elif example is None:
        raise ConfigError("A network is captured with an example: a batch that it takes.")
    else:
        captured = capture(model, example_of(model, example, shapes, inputs))
    if drawn := [str(node.target) for node in captured.serve.nodes if draws(node)]:
        raise ConfigError(
            f"The network draws random numbers while it serves ({drawn[0]}), so that it answers the same row "
            "differently. Let it do so while training alone; a program is saved in evaluation mode."
        )
    return model, captured


def places_of(captured: Capture, *, max_tensors: int = MAX_TENSORS) -> Places:
    """Find the legal cuts of a captured network."""
    flow = flow_of(captured.serve, captured.tensors, captured.example)
    cuts, closed = legal_cuts(flow, captured.tensors, max_tensors, open_end=False)
    return Places(captured=captured, flow=flow, cuts=cuts, closed=closed)
