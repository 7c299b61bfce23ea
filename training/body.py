"""The body of a stage: a part of a captured network as a module, with one graph to serve and one to train.

Both graphs read the same parameters and buffers, which are those of the network that was captured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

Run = Callable[..., tuple[Tensor, ...]]


class CapturedPart(nn.Module):
    """Run a part of a captured network.

    Args:
        serve: graph for evaluation mode: tensors in, a tuple of tensors out.
        train: graph for training mode, with the same inputs and outputs.
        tensors: parameters and buffers that the graphs read, by name; shared, not copied.
        kept: names of those that belong into a state dict.
        parts: graphs that operators of the graphs run, by name.
    """

    def __init__(
        self,
        serve: fx.Graph,
        train: fx.Graph,
        *,
        tensors: Mapping[str, Tensor],
        kept: frozenset[str],
        parts: Mapping[str, fx.GraphModule],
    ) -> None:
        super().__init__()
        self.tensors = nn.Module()
        for name, tensor in tensors.items():
            _hold(self.tensors, name, tensor, persistent=name in kept)
        self.parts = nn.ModuleDict(parts)
        self._serve, self._train = _compiled(serve), _compiled(train)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Make the part's values from those that it reads, in the order of the graphs."""
        return (self._train if self.training else self._serve)(self, *tensors)


class OneTensor(nn.Module):
    """A part of a captured network that makes a single tensor, such as logits [B, C]."""

    def __init__(self, part: CapturedPart) -> None:
        super().__init__()
        self.part = part

    def forward(self, *tensors: Tensor) -> Tensor:
        """Make the tensor."""
        (made,) = self.part(*tensors)
        return made  # type: ignore[no-any-return]


def _hold(root: nn.Module, name: str, tensor: Tensor, *, persistent: bool) -> None:
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(last, tensor)
    else:
        root.register_buffer(last, tensor, persistent=persistent)


def _compiled(graph: fx.Graph) -> Run:
    code = graph.python_code("self")
    scope: dict[str, Any] = dict(code.globals)
    scope.setdefault("torch", torch)
    exec(compile(code.src, "<captured>", "exec"), scope)
    run: Run = scope["forward"]
    return run
