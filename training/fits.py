"""Whether data and settings fit a network, looked at before anything is trained."""

from __future__ import annotations

import numpy as np

from calibration.datasets import Examples
from common.errors import ConfigError
from training.augment import changes_for
from training.network import MultiExitNetwork
from training.settings import TrainingSettings

_ROWS = 1000


def check_fits(
    network: MultiExitNetwork, train_split: Examples, validation_split: Examples, settings: TrainingSettings
) -> None:
    """Refuse what cannot be trained on.

    Raises:
        ConfigError: one sentence with what is wrong and what would be right.
    """
    for name, split in (("train", train_split), ("validation", validation_split)):
        _check_split(network, name, split)
    size = settings.batch_rows(len(train_split))
    if len(train_split) < size:
        raise ConfigError(f"training.batch_size is {size}, but only {len(train_split)} rows are left to train on.")
    if changes_for(settings.augment, network.image) is not None and not any(len(s.shape) == 3 for s in network.inputs):
        raise ConfigError("training.augment has no effect: the network's inputs are no images.")


def _check_split(network: MultiExitNetwork, name: str, split: Examples) -> None:
    if not len(split):
        raise ConfigError(f"The {name} split is empty.")
    for spec in network.inputs:
        if spec.name not in split.inputs:
            raise ConfigError(f"The network reads {spec.name!r}. The data set has {', '.join(sorted(split.inputs))}.")
        found = split.inputs[spec.name]
        if found.dtype.name != spec.dtype or not spec.fits(found.shape[1:]):
            raise ConfigError(
                f"The data set's {spec.name!r} is {found.dtype.name} {list(found.shape[1:])}. "
                f"The network takes {spec.dtype} {list(spec.shape)}."
            )
        for at in range(0, len(found), _ROWS) if found.dtype.kind == "f" else ():
            bad_N = ~np.isfinite(found[at : at + _ROWS]).reshape(len(found[at : at + _ROWS]), -1).all(axis=1)
            if bad_N.any():
                raise ConfigError(
                    f"The {name} split's {spec.name!r} holds NaN or infinity in row {at + bad_N.argmax()}."
                )
    labels_N, classes = split.labels_N, len(network.classes)
    for label in (labels_N.min(), labels_N.max()):
        if not 0 <= label < classes:
            raise ConfigError(
                f"The data set has label {label}. The network has {classes} classes, labels 0 to {classes - 1}."
            )
