"""The binary format of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): per image its label bytes, then 3 x 32 x 32 bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calibration.data.checks import checked_labels
from common.errors import ConfigError
from common.types import Array

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_MAX_BYTES = 1 << 30


def read_cifar(paths: Sequence[Path], classes: tuple[str, ...], *, label_bytes: int) -> tuple[Array, Array, list[str]]:
    """Read files of images, one after the other.

    Args:
        paths: the files.
        classes: their names.
        label_bytes: in front of each image; the last of them is the label that is taken (CIFAR-100 has two).

    Returns:
        Images [N, 3, 32, 32] uint8, labels [N] int64, and the sha256 of every file.

    Raises:
        ConfigError: when a file cannot be read or is no such file, or a label is outside the classes.
    """
    record = label_bytes + _PIXELS
    sizes = [_size(path, record) for path in paths]
    images_NCHW = np.empty((sum(sizes) // record, *_SHAPE), np.uint8)
    labels_N = np.empty(len(images_NCHW), np.int64)
    sha256, at = [], 0
    for path, size in zip(paths, sizes, strict=True):
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
        if len(raw) != size:
            raise ConfigError(f"{path} changed while it was read.")
        rows = np.frombuffer(raw, np.uint8).reshape(-1, record)
        images_NCHW[at : at + len(rows)] = rows[:, label_bytes:].reshape(-1, *_SHAPE)
        labels_N[at : at + len(rows)], _ = checked_labels(rows[:, label_bytes - 1], classes, f"{path}: the labels")
        sha256.append(hashlib.sha256(raw).hexdigest())
        at += len(rows)
    return images_NCHW, labels_N, sha256


def _size(path: Path, record: int) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    if not 0 < size <= _MAX_BYTES or size % record:
        raise ConfigError(f"{path} has {size} bytes. A file of CIFAR images has a multiple of {record}.")
    return size
