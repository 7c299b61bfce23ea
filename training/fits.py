"""Whether data and settings fit a network, looked at before anything is trained."""

from __future__ import annotations

import numpy as np
import torch

from calibration.datasets import Data, Examples
from common.errors import ConfigError
from training.augment import changes_for
from training.network import MultiExitNetwork
from training.settings import TrainingSettings
from training.tracing import first_line, in_mode

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


def check_data(network: MultiExitNetwork, data: Data, settings: TrainingSettings) -> None:
    """`check_fits`, and what all rows show: labels and numbers that the network cannot take, by row.

    Raises:
        ConfigError: as `check_fits`.
    """
    data.check_classes(len(network.classes))
    check_fits(network, data.splits.train, data.splits.validation, settings)
    _check_numbers(network, data)


def _check_numbers(network: MultiExitNetwork, data: Data) -> None:
    """Refuse whole numbers that the network cannot take, such as token ids beyond its vocabulary.

    The rows with the largest and the smallest of them go through it.
    """
    sides = {"row": data.source.train} | ({} if data.source.test is None else {"test row": data.source.test})
    for side, rows in sides.items():
        for name, array in rows.inputs.items():
            if array.dtype.kind not in "iu" or array.dtype.itemsize == 1:
                continue
            flat = array.reshape(len(array), -1)
            for row, value in ((flat.max(1).argmax(), flat.max()), (flat.min(1).argmin(), flat.min())):
                batch = [torch.from_numpy(rows.inputs[spec.name][row : row + 1].copy()) for spec in network.inputs]
                try:
                    with in_mode(network, training=False), torch.no_grad():
                        network(*batch)
                except Exception as error:  # whatever forward raises
                    raise ConfigError(
                        f"{data.source.name}: the network does not take {side} {row}, where {name} holds {value}: "
                        f"{first_line(error)}"
                    ) from None


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
    wrong_N = (labels_N < 0) | (labels_N >= classes)
    if wrong_N.any():
        row = int(wrong_N.argmax())
        raise ConfigError(
            f"The {name} split has label {labels_N[row]} in row {row}. The network has {classes} classes, labels 0 to "
            f"{classes - 1}."
        )
