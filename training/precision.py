"""The arithmetic that a network trains in: bfloat16 where the processor has it and it pays.

Weights stay float32, and so does what is exported; only products and convolutions are computed on rounded operands
(Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", 2019).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Precision = Literal["float32", "bfloat16"]


def chosen(wanted: Literal["auto", "float32", "bfloat16"], network: nn.Module) -> Precision:
    """What `training.precision` means on this machine: `auto` is bfloat16 for convolutions on a processor that has it.

    Where it has not, bfloat16 is emulated and slower than float32.
    """
    if wanted != "auto":
        return wanted
    return "bfloat16" if native_bfloat16() and has_convolutions(network) else "float32"


def native_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX512-BF16, AMX, or Arm's)."""
    return any(has for name, has in torch.cpu.get_capabilities().items() if "bf16" in name)


def has_convolutions(network: nn.Module) -> bool:
    """Whether a weight is a convolution's: [out, in, ...] with at least one axis of places."""
    return any(parameter.ndim >= 3 for parameter in network.parameters())
