"""Which axis of an activation holds its features: the first (channels) or the last (tokens).

Told by the nearest operation that treats one axis apart: a convolution, a pooling and a batch norm look at
channels, a product and a layer norm at the last axis. What only reorders axes hides what lies behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import fx

from training.program import Program, is_tensor

_FIRST = ("conv", "pool", "batch_norm", "group_norm", "instance_norm", "upsample", "pixel_shuffle", "prelu")
_LAST = ("linear", "layer_norm", "rms_norm", "gru", "lstm", "rnn_tanh", "rnn_relu")
_HIDES = ("transpose", "permute", "view", "reshape", "flatten", "unflatten", "squeeze", "select", "mean", "matmul")
_STEPS = 40


def features_last(program: Program, value: fx.Node) -> bool:
    """Whether the features of an activation lie on its last axis.

    Args:
        program: that makes it.
        value: the activation, [B, ...].
    """
    ahead = _told(program, value, lambda node: node.users)
    if ahead is None:
        ahead = _told(program, value, program.arguments, own=True)
    return value.meta["val"].ndim == 3 if ahead is None else ahead


def _told(
    program: Program, value: fx.Node, step: Callable[[fx.Node], Iterable[fx.Node]], *, own: bool = False
) -> bool | None:
    pending = [value] if own else list(step(value))
    for _ in range(_STEPS):
        if not pending:
            return None
        node = pending.pop(0)
        if node in program.weights or not is_tensor(node):
            continue
        name = str(node.target)
        if any(word in name for word in _LAST):
            return True
        if any(word in name for word in _FIRST):
            return False
        if not any(word in name for word in _HIDES):
            pending.extend(step(node))
    return None
