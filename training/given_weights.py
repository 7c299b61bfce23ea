"""Weights that a recipe gives a network to start from: `model.weights: FILE.npz`.

The file is a numpy archive: of arrays by the names of the network's own state dict, or what `offramp train` wrote,
for the same network with or without exits. Early heads start at random where it has none that fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.types import Array
from training.arrays import DOCUMENT, reason_of

_CAPTURED = re.compile(r"(?:bodies\.\d+|heads\.\d+\.part)\.tensors\.(.+)")  # of a stage cut out of a network


def start_from(network: nn.Module, path: Path) -> None:
    """Put the weights of a file into a network, before exits are put on it.

    Raises:
        ConfigError: when there is no such archive, or it does not hold every weight of the network in its shape.
    """
    arrays = _read(path)
    own = network.state_dict()
    if not set(own) <= set(arrays):
        arrays = {found[1]: array for name, array in arrays.items() if (found := _CAPTURED.fullmatch(name))} | arrays
    arrays |= _known_otherwise(own, arrays)
    for name, value in own.items():
        if name not in arrays:
            raise ConfigError(f"{path} has no weights {name!r} for the network.")
        if arrays[name].shape != tuple(value.shape):
            raise ConfigError(
                f"{path} has {name!r} as {list(arrays[name].shape)}. The network's is {list(value.shape)}."
            )
    network.load_state_dict({name: torch.from_numpy(np.array(arrays[name])) for name in own})


def _known_otherwise(own: Mapping[str, Tensor], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What a file need not hold: a tied tensor's other names, and how many batches a batch norm has seen."""
    held = {(value.data_ptr(), value.shape): arrays[name] for name, value in own.items() if name in arrays}
    found = {}
    for name, value in own.items():
        if name not in arrays and (value.data_ptr(), value.shape) in held:
            found[name] = held[value.data_ptr(), value.shape]
        elif name not in arrays and name.endswith("num_batches_tracked"):
            found[name] = value.numpy()
    return found


def _read(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name != DOCUMENT}
    except Exception as error:  # a damaged zip file raises many things
        reason = "" if "pickle" in str(error) else f": {reason_of(error)}"  # numpy's advice is to unpickle it
        raise ConfigError(f"{path} is no numpy archive of weights (.npz){reason}.") from None
