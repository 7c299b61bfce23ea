"""How large a request for one bundle can be, derived from its tensors.

A general limit must leave room for the largest networks; a message of that size made of millions of tiny things
would keep a small tier busy for seconds before anybody could refuse it. The bundle says what is possible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from common.limits import Limits
from common.manifest import Manifest, TensorSpec
from common.rule import Rule

_SLACK_BYTES = 1 << 20  # ids and names
_SLACK_VALUES = 1024  # options, and a little more for a friendly message


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The most that a request can hold; infinity where a tensor's size is open."""

    json_values: float  # commas between them
    json_lists: float  # arrays and objects
    message_bytes: int  # of a gRPC message


def bounds(manifest: Manifest, limits: Limits) -> Bounds:
    """The bounds of requests to a bundle."""
    inputs = [manifest.tensors[name] for name in manifest.inputs]
    row_bytes = max(
        sum(_bytes(manifest, manifest.tensors[name]) for name in manifest.live(stage))
        for stage in range(len(manifest.stages))
    )
    row_bytes += max(_state_bytes(Rule.of(manifest, point)) for point in manifest.operating_points.values())
    most = limits.batch_rows * row_bytes + limits.batch_rows * 16 + _SLACK_BYTES
    return Bounds(
        json_values=limits.batch_rows * sum(math.prod(_sizes(manifest, spec)) for spec in inputs) + _SLACK_VALUES,
        json_lists=limits.batch_rows * (1 + sum(_lists(_sizes(manifest, spec)) for spec in inputs)) + _SLACK_VALUES,
        message_bytes=int(min(most, limits.max_message_bytes)),
    )


def _state_bytes(rule: Rule) -> int:
    """The most that a row's state takes at any exit."""
    return max(
        sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in rule.state_before(exit).values())
        for exit in range(rule.exits)
    )


def _sizes(manifest: Manifest, spec: TensorSpec) -> tuple[float, ...]:
    return tuple(max(manifest.buckets.get(size, (math.inf,))) if isinstance(size, str) else size for size in spec.shape)


def _bytes(manifest: Manifest, spec: TensorSpec) -> float:
    return math.prod(_sizes(manifest, spec)) * np.dtype(spec.dtype).itemsize


def _lists(sizes: tuple[float, ...]) -> float:
    """Arrays in one row, written nested."""
    return sum(math.prod(sizes[:depth]) for depth in range(len(sizes)))
