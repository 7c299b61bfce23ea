"""A row's answer is its own: what a bundle says of a row does not depend on the rows beside it in a batch.

Serving joins the rows of all callers, and every figure and certificate comes from batches of its own making.
"""

from __future__ import annotations

import numpy as np

from calibration.datasets import Examples
from calibration.served import Served
from common.errors import ConfigError

_ROWS = 128  # of a batch
_TOLERANCE = 1e-3  # of the largest logit, or of 1


def check_apart(served: Served, examples: Examples) -> None:
    """Exchange the rows beside two rows of a batch, with nothing coded on the way.

    Both batches are of one size and have the two rows in the same places, so that rounding is the same, too.

    Args:
        served: the bundle.
        examples: the rows, of which fewer than 4 say nothing.

    Raises:
        ConfigError: naming the first exit where a row's logits depend on the rows beside it.
    """
    size = min(_ROWS, len(examples) // 2)
    if size < 2:
        return
    rows, kept = np.arange(size), [0, size // 2]
    beside = rows + size
    beside[kept] = kept
    inputs = served.inputs(examples)
    one, other = (
        served.says_from(0, {name: array[index] for name, array in inputs.items()}, coded=False)
        for index in (rows, beside)
    )
    for number, (wanted_NC, found_NC) in enumerate(zip(one.logits, other.logits, strict=True)):
        gap = float(np.abs(wanted_NC[kept] - found_NC[kept]).max()) / max(1.0, float(np.abs(wanted_NC[kept]).max()))
        if gap > _TOLERANCE:
            raise ConfigError(mixed(number, gap))


def mixed(number: int, gap: float) -> str:
    """What is said of an exit whose logits for a row differ by `gap` between batches."""
    return (
        f"Exit {number} answers a row differently when other rows are in its batch: its logits differ by {gap:.2g}. "
        "A row's answer must depend on that row alone. Attention over the axis of the rows (batch_first=False), or a "
        "mean or a maximum over the batch, mixes them."
    )
