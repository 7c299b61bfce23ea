"""A row's answer is its own: what a bundle says of a row does not depend on the rows beside it in a batch.

Serving joins the rows of all callers, and every figure and certificate comes from batches of its own making.
"""

from __future__ import annotations

import numpy as np

from calibration.datasets import Examples
from calibration.served import Served
from common.errors import ConfigError
from common.types import Array, Tensors

_ALONE, _TOGETHER = 4, 256  # rows that are run one by one, and the batch that they are compared with
_TOLERANCES = {"float32": 1e-3}  # of the largest logit, or of 1
_ROUGH = 5e-2  # in any other precision


def check_apart(served: Served, examples: Examples) -> None:
    """Run some rows alone and in a batch, with nothing coded on the way.

    Args:
        served: the bundle.
        examples: the rows; all inputs of a row count.

    Raises:
        ConfigError: naming the first exit where a row's logits depend on the rows beside it.
    """
    rows = {name: array[:_TOGETHER] for name, array in served.inputs(examples).items()}
    together = _logits(served, rows)
    tolerance = _TOLERANCES.get(served.precision, _ROUGH)
    for row in range(min(_ALONE, len(examples))):
        alone = _logits(served, {name: array[row : row + 1] for name, array in rows.items()})
        for number, (one, many) in enumerate(zip(alone, together, strict=True)):
            gap = float(np.abs(one[0] - many[row]).max()) / max(1.0, float(np.abs(one[0]).max()))
            if gap > tolerance:
                raise ConfigError(mixed(number, gap))


def mixed(number: int, gap: float) -> str:
    """What is said of an exit whose logits for a row differ by `gap` between batches."""
    return (
        f"Exit {number} answers a row differently when other rows are in its batch: its logits differ by {gap:.2g}. "
        "A row's answer must depend on that row alone. Attention over the axis of the rows (batch_first=False), or a "
        "mean or a maximum over the batch, mixes them."
    )


def _logits(served: Served, live: Tensors) -> list[Array]:
    """Of every exit, [N, C]."""
    found: list[Array] = []
    for number, stage in enumerate(served.manifest.stages):
        live = {**live, **served.run_stage(number, live)}
        if stage.exit is not None:
            found.append(live[served.manifest.exits[stage.exit].logits])
    return found
