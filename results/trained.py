"""What a network that was trained for a table says about the rows that nothing was trained on, in torch.

Tensor names carry their axes: N rows of a split, C classes, E exits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from calibration.combination import fit_combinations
from calibration.data.examples import Examples
from calibration.datasets import divide, load_test, load_train
from calibration.temperature import fit_temperature
from calibration.thresholds import ExitScores, choose, criterion_named, outcome
from common.criteria import Outputs, log_softmax
from common.manifest import Exit
from common.rule import together
from common.types import Array
from results.curves import Answers
from results.runs import Run, Settings, written
from training.build import train_weights
from training.cost import costs
from training.models import make_network
from training.network import MultiExitNetwork
from training.phase import answer
from training.recipe import RecipeFile, load_recipe
from training.weights import load_weights

SPLITS = ("tune", "calibration", "test")
CONFIDENCE, CANDIDATES = 0.9, 50  # of a drop's upper limit; thresholds tried per exit
_BATCH, _MOST = 500, 10_000  # rows at a time, and of a split


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Logits, and gates where there are any, of every exit on `SPLITS`; what it costs to leave at each exit."""

    logits: dict[str, Array]  # split -> [E, N, C]
    gates: dict[str, Array]  # split -> [E, N], NaN where an exit has none
    labels: dict[str, Array]  # split -> [N]
    flops_E: Array
    whole: float  # FLOPs without early exits
    training: Mapping[str, Any] = field(default_factory=dict)  # the recipe's section
    rows: Mapping[str, int] = field(default_factory=dict)  # of every split, asked or not

    def accuracies(self, split: str = "test") -> list[float]:
        """Of every exit, answering every row."""
        right_EN = self.logits[split].argmax(axis=2) == self.labels[split]
        return [float(one) for one in right_EN.mean(axis=1)]

    @cached_property
    def exits(self) -> tuple[Exit, ...]:
        """With temperature and combination of every exit, fitted on the tune split."""
        logits, labels_N = list(self.logits["tune"]), self.labels["tune"]
        warm = [
            Exit(stage=number, logits="", temperature=fit_temperature(logits_NC, labels_N))
            for number, logits_NC in enumerate(logits)
        ]
        combined = fit_combinations(logits, warm, labels_N)
        return tuple(replace(leave, combine=how) for leave, how in zip(warm, combined, strict=True))

    def answers(self, split: str, *, combined: bool = False, surest: bool = False) -> Answers:
        """Calibrated probabilities of a split; costs are shares of the network without early exits.

        Args:
            split: one of `SPLITS`.
            combined: every exit answers together with those before it.
            surest: see `Answers`.
        """
        logs = [
            log_softmax(logits_NC, leave.temperature)
            for logits_NC, leave in zip(self.logits[split], self.exits, strict=True)
        ]
        probs = [np.exp(logs_NC) for logs_NC in logs]
        if combined:
            hows = [leave.combine for leave in self.exits]
            probs = [together(np.stack(logs[: k + 1], axis=1), how) for k, how in enumerate(hows) if how is not None]
        return Answers(
            probs_ENC=np.stack(probs), labels_N=self.labels[split], cost_E=self.flops_E / self.whole, surest=surest
        )

    def at_target(self, name: str, target_drop: float) -> dict[str, float | list[float]]:
        """The test split at the thresholds of a criterion that calibration takes for a target drop in accuracy."""
        criterion = criterion_named(name)

        def scores(split: str) -> ExitScores:
            outputs = [
                Outputs.of(logits_NC, self.exits[number].temperature, None if np.isnan(gate_N).any() else gate_N)
                for number, (logits_NC, gate_N) in enumerate(zip(self.logits[split], self.gates[split], strict=True))
            ]
            return ExitScores.scored(outputs, criterion)

        rows = scores("calibration")
        thresholds = choose(
            *(criterion, scores("tune"), rows, rows.labels_EN[-1], self.labels["calibration"], self.flops_E),
            target_drop=target_drop,
            confidence=CONFIDENCE,
            count=CANDIDATES,
        )
        found = outcome(scores("test"), self.labels["test"], criterion, thresholds, self.flops_E)
        return {
            "accuracy": found.accuracy,
            "exit_rates": list(found.exit_rates),
            "saved": 1.0 - found.mean_flops / self.whole,
        }


def trained(run: Run, settings: Settings) -> Trained:
    """Train, unless the weights are there, and ask every exit."""
    source, official, network = with_weights(run, settings)
    splits = divide(official, source.recipe.data)
    parts = {
        "tune": splits.tune,
        "calibration": splits.certify.take(np.arange(min(_MOST, len(splits.certify)))),
        "test": load_test(source.recipe.data, settings.data_dir),
    }
    said = {name: _said(network, rows, settings.threads) for name, rows in parts.items()}
    cost = costs(network)
    return Trained(
        logits={name: logits for name, (logits, _) in said.items()},
        gates={name: gates for name, (_, gates) in said.items()},
        labels={name: rows.labels_N for name, rows in parts.items()},
        flops_E=np.array(cost.leaving(), np.float64),
        whole=float(cost.whole),
        training=source.recipe.training.model_dump(exclude_none=True),
        rows={"train": len(splits.train), **{name: len(rows) for name, rows in parts.items()}},
    )


def with_weights(run: Run, settings: Settings) -> tuple[RecipeFile, Examples, MultiExitNetwork]:
    """The recipe, its train rows, and its network with the weights that were trained; trains where there are none."""
    recipe, weights = written(run, settings), settings.work / f"{run.name}.npz"
    if not weights.exists():
        train_weights(recipe, weights, settings.data_dir, seed=run.seed, threads=settings.threads)
    source = load_recipe(recipe)
    training = source.recipe.training.model_copy(update={"seed": run.seed})
    source = replace(source, recipe=source.recipe.model_copy(update={"training": training}))
    official = load_train(source.recipe.data, settings.data_dir)
    network = make_network(source, official)
    load_weights(weights, network, source.recipe)
    return source, official, network


def _said(network: MultiExitNetwork, rows: Examples, threads: int) -> tuple[Array, Array]:
    torch.set_num_threads(threads)
    network.eval()
    everyone = tuple(range(len(network.exits)))
    logits: list[Array] = []
    gates: list[Array] = []
    with torch.inference_mode():
        for at in range(0, len(rows), _BATCH):
            inputs = tuple(torch.tensor(rows.inputs[spec.name][at : at + _BATCH]) for spec in network.inputs)
            answers = answer(network, inputs, everyone)
            logits.append(torch.stack([answers.logits[number].float() for number in everyone]).numpy())
            nothing = torch.full((len(inputs[0]),), torch.nan)
            gates.append(torch.stack([answers.gates.get(number, nothing).float() for number in everyone]).numpy())
    return np.concatenate(logits, axis=1), np.concatenate(gates, axis=1)
