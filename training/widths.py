"""Wider and narrower versions of a network: the same layers, with more or fewer channels."""

from __future__ import annotations


def times(width: float, *channels: int) -> tuple[int, ...]:
    """Numbers of channels, each times `width`, rounded, at least 1.

    Raises:
        ValueError: when `width` is not above 0, or a number of channels is below 1.
    """
    if not width > 0:
        raise ValueError(f"width is {width}, and must be above 0")
    if min(channels) < 1:
        raise ValueError(f"a layer has {min(channels)} channels, and must have at least 1")
    return tuple(max(round(width * count), 1) for count in channels)
