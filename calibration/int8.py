"""The whole network in 8-bit integers: the other way to make a network cheap, and a baseline for every exit.

Quantised by onnxruntime. With convolutions statically: scales of activations are fixed beforehand, on rows of the tune
split. Without (transformers, dense layers) dynamically: each batch finds its own scales, and no data are needed.
Weights are signed with a scale per channel, activations unsigned.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.hushed import hushed
from calibration.one_graph import join_stages, require_onnx, saved
from common.bundle import Bundle
from common.errors import ConfigError
from common.types import Array, Tensors

_MOST_ROWS = 512
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Int8:
    """A quantised network."""

    model: bytes
    method: str  # "static" or "dynamic"
    rows: int  # of the tune split that scales were fixed on


def quantise(bundle: Bundle, tune: Callable[[], Tensors]) -> Int8:
    """Quantise a bundle's network, joined and without early exits.

    Args:
        bundle: in float32.
        tune: gives the input tensors of the tune split; asked only where static scales are needed.

    Raises:
        ConfigError: when onnx is not installed, the rows cannot be had, or onnxruntime cannot quantise the network.
    """
    require_onnx("The int8 baseline")
    from onnxruntime import quantization

    joined = join_stages(bundle)
    static = any(node.op_type == "Conv" for node in joined.graph.node)
    rows = _Rows(tune()) if static else None
    unsigned, signed = quantization.QuantType.QUInt8, quantization.QuantType.QInt8
    with tempfile.TemporaryDirectory() as work, hushed():
        plain, ready, done = saved(joined, Path(work), "plain.onnx"), Path(work, "ready.onnx"), Path(work, "int8.onnx")
        try:
            quantization.quant_pre_process(plain, ready, skip_symbolic_shape=True)
            if rows is None:
                quantization.quantize_dynamic(ready, done, per_channel=True, weight_type=signed)
            else:
                quantization.quantize_static(
                    ready, done, rows, per_channel=True, activation_type=unsigned, weight_type=signed
                )
        except Exception as error:  # the quantiser raises whatever it meets
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"onnxruntime cannot quantise {bundle.manifest.name}: {reason}") from None
        return Int8(
            model=done.read_bytes(),
            method="dynamic" if rows is None else "static",
            rows=0 if rows is None else rows.count,
        )


class _Rows:
    """Hands rows to the quantiser, batch by batch."""

    def __init__(self, inputs: Tensors) -> None:
        self.count = min(len(next(iter(inputs.values()))), _MOST_ROWS)
        self._inputs = {name: array[: self.count] for name, array in inputs.items()}
        self._batches: Iterator[Tensors] = iter(self)

    def __iter__(self) -> Iterator[Tensors]:
        for at in range(0, self.count, _AT_ONCE):
            yield {name: np.ascontiguousarray(array[at : at + _AT_ONCE]) for name, array in self._inputs.items()}

    def __len__(self) -> int:
        return -(-self.count // _AT_ONCE)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Read only some of the batches, as the quantiser asks for large networks."""
        self._batches = iter(list(self)[start_index:end_index])

    def get_next(self) -> Mapping[str, Array] | None:
        """The next batch, None at the end."""
        return next(self._batches, None)
