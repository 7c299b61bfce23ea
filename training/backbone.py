"""Whether the backbone that `exits-only` leaves as it is knows anything: its last exit is asked before training.

A function of a user's may return a trained network or one that is still random, and nothing in it tells which. What
its last exit answers on the validation split does.
"""

from __future__ import annotations

import numpy as np

from calibration.datasets import Examples
from common.errors import ConfigError
from common.types import Array
from training.methods.exits_only import ExitsOnlyTraining
from training.network import MultiExitNetwork
from training.progress import Reporter
from training.prune import measure
from training.recipe import Recipe

_LEAST = 0.1  # of the way from guessing to never being wrong


def check_backbone(network: MultiExitNetwork, recipe: Recipe, validation: Examples, report: Reporter) -> None:
    """Say how good a backbone is that will stay as it is.

    Raises:
        ConfigError: where it hardly does better than guessing, and the recipe names no weights and no training of it.
    """
    training, model = recipe.training, recipe.model
    if not isinstance(training, ExitsOnlyTraining) or training.backbone_epochs:
        return
    answers_N = measure(network, validation.inputs, validation.labels_N).scores.labels_EN[-1]
    right = 100 * np.mean(answers_N == validation.labels_N)
    report.line(f"the backbone stays as it is: its last exit is right for {right:.1f} % of the validation rows")
    if model.weights is None and not _knows(answers_N, validation.labels_N):
        raise ConfigError(
            f"training.recipe is exits-only, and {model.factory} hardly does better than guessing on the validation "
            "rows, as if its weights were still random. Give it trained weights with model.weights, or train it for "
            "training.backbone_epochs."
        )


def _knows(answers_N: Array, labels_N: Array) -> bool:
    """Whether the mean over classes of the share of rows that are right lies well above that of guessing."""
    present = np.unique(labels_N)
    recall = float(np.mean([np.mean(answers_N[labels_N == label] == label) for label in present]))
    chance = 1.0 / len(present)
    return len(present) == 1 or recall - chance >= _LEAST * (1.0 - chance)
