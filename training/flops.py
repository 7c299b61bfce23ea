"""FLOPs: multiplications and additions of matrix products, convolutions and attention, two per product.

Counted by `torch.utils.flop_counter` while the computation runs; what it leaves out on CPUs is added here.
Element-wise work does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

aten = torch.ops.aten


def count_flops(run: Callable[[], object]) -> int:
    """FLOPs of everything that `run` computes with tensors, real or fake."""
    with FlopCounterMode(display=False, custom_mapping=_MISSING) as counter:
        run()
    return int(counter.get_total_flops())


def _attention(
    query_shape: Any, key_shape: Any, value_shape: Any, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    return int(sdpa_flop_count(query_shape, key_shape, value_shape))  # type: ignore[no-untyped-call]


def _lstm_layer(input_shape: Any, w_ih: Any, w_hh: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """One direction of one layer: both products of every gate, at every step of every row."""
    steps = int(input_shape[0] * input_shape[1])
    return 2 * steps * int(w_ih[0] * w_ih[1] + w_hh[0] * w_hh[1])


_MISSING: dict[Any, Any] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
    aten.mkldnn_rnn_layer: _lstm_layer,
}
