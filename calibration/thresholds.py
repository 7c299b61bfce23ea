"""Thresholds: how sure an exit must be, for a target drop in accuracy below the last exit.

Candidates are quantiles of each exit's scores on the tune split. Of their combinations the cheapest (mean FLOPs
per row) is taken whose drop is at most the target with some prudence: not the drop itself, but its one-sided
upper confidence limit must stay below (`calibration.matched`, exact on few rows as well). That limit holds for one
combination. Many are compared on the same rows, so this is prudent, not a guarantee.

Tensor names carry their axes: N rows of a split, C classes, E exits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from calibration.matched import drop_shown
from calibration.served import Said
from common.criteria import CRITERIA, Criterion, Outputs
from common.errors import ConfigError
from common.manifest import Manifest
from common.rule import Rule
from common.types import Array, Tensors

_MOST_COMBINATIONS = 250_000


@dataclass(frozen=True, kw_only=True)
class ExitScores:
    """What every exit says about a split."""

    scores_EN: Array  # what the criterion compares with its threshold
    labels_EN: Array  # the answer that the exit would give

    @classmethod
    def of(cls, said: Said, rule: Rule) -> ExitScores:
        """From what every exit says and the rule that a tier decides by."""
        return cls.scored(outputs_of(said, rule), rule.criterion)

    @classmethod
    def scored(cls, outputs: Sequence[Outputs], criterion: Criterion) -> ExitScores:
        """From the outputs of every exit, first exit first; state goes from each to the next."""
        scores: list[Array] = []
        state: Tensors = {}
        for output in outputs:
            scores_N, state = criterion.score(output, state)
            scores.append(scores_N)
        return cls(scores_EN=np.stack(scores), labels_EN=np.stack([output.labels_B for output in outputs]))


def outputs_of(said: Said, rule: Rule) -> list[Outputs]:
    """Calibrated, combined and gated, as a tier has them, at every exit."""
    outputs: list[Outputs] = []
    state: Tensors = {}
    for number, (logits_NC, gate_N) in enumerate(zip(said.logits, said.gates, strict=True)):
        output, state = rule.says(number, logits_NC, gate_N, state)
        outputs.append(output)
    return outputs


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a split's rows get under some thresholds."""

    accuracy: float
    exit_rates: tuple[float, ...]
    exit_accuracy: tuple[float | None, ...]  # among the rows answered there
    mean_flops: float


def accepts(criterion: Criterion, scores_N: Array, threshold: float) -> Array:
    """Which rows an exit would accept, [N] bool; a threshold of NaN accepts none."""
    result: Array = scores_N >= threshold if criterion.stricter_is_higher else scores_N <= threshold
    return result


def exits_taken(criterion: Criterion, scores_EN: Array, thresholds: Sequence[float]) -> Array:
    """The exit at which each row leaves, [N]; the last accepts whatever is left."""
    taken_N = np.full(scores_EN.shape[1], len(scores_EN) - 1)
    for number in range(len(scores_EN) - 2, -1, -1):
        taken_N[accepts(criterion, scores_EN[number], thresholds[number])] = number
    return taken_N


def exit_flops(manifest: Manifest) -> Array:
    """FLOPs that a row has cost once it leaves at each exit, [E]."""
    upto = np.cumsum([stage.flops for stage in manifest.stages])
    return np.array([upto[leave.stage] for leave in manifest.exits], dtype=np.float64)


def outcome(
    scores: ExitScores, labels_N: Array, criterion: Criterion, thresholds: Sequence[float], flops_E: Array
) -> Outcome:
    """Accuracy, exit rates and cost of a split under some thresholds."""
    taken_N = exits_taken(criterion, scores.scores_EN, thresholds)
    right_N = scores.labels_EN[taken_N, np.arange(len(labels_N))] == labels_N
    counts = np.bincount(taken_N, minlength=len(flops_E))
    rights = np.bincount(taken_N, weights=right_N, minlength=len(flops_E))
    return Outcome(
        accuracy=float(right_N.mean()),
        exit_rates=tuple(float(count) / len(labels_N) for count in counts),
        exit_accuracy=tuple(float(r / c) if c else None for r, c in zip(rights, counts, strict=True)),
        mean_flops=float(flops_E[taken_N].mean()),
    )


def candidates(criterion: Criterion, scores_N: Array, count: int) -> tuple[float, ...]:
    """Thresholds to try at one exit, strictest first: never, then quantiles of its scores, then always."""
    known_N = scores_N[~np.isnan(scores_N)].astype(np.float64)
    if not len(known_N):
        return (math.nan,)  # an exit without a gate
    quantiles = np.quantile(known_N, np.linspace(0.0, 1.0, count + 1))
    rounded = {round(float(q), criterion.decimals) for q in quantiles}  # ties with a float32 score are out of the way
    unique = sorted(rounded | {criterion.accept_all}, reverse=criterion.stricter_is_higher)
    return (math.nan, *unique)


def choose(
    criterion: Criterion,
    tune: ExitScores,
    scores: ExitScores,
    last_N: Array,
    labels_N: Array,
    flops_E: Array,
    *,
    target_drop: float,
    confidence: float,
    count: int,
) -> tuple[float, ...]:
    """The cheapest thresholds, one per exit, whose drop's upper limit is at most the target.

    Args:
        criterion: decides.
        tune: where candidates come from.
        scores: of the rows that they are judged on.
        last_N: what the last exit answers there by itself.
        labels_N: right classes.
        flops_E: of a row that leaves at each exit.
        target_drop: in accuracy below the last exit by itself.
        confidence: of the limit.
        count: thresholds tried per exit, fewer where the exits are many.

    Returns:
        Thresholds, NaN where an exit never accepts; all rows go to the last exit when nothing else is safe.
    """
    if not len(labels_N):
        raise ConfigError("There are no rows to choose thresholds on.")
    last = len(flops_E) - 1
    right_EN, safe_N = scores.labels_EN == labels_N, last_N == labels_N
    per_exit = max(2, min(count, int(_MOST_COMBINATIONS ** (1.0 / max(last, 1)))))
    tried = [candidates(criterion, tune.scores_EN[number], per_exit) for number in range(last)]
    cheaper: list[tuple[float, int, int, tuple[float, ...]]] = []
    for thresholds, taken_N in _combinations(criterion, scores.scores_EN, tried):
        mean_flops = float(flops_E[taken_N].mean())
        if mean_flops < flops_E[last]:
            right_N = right_EN[taken_N, np.arange(len(labels_N))]
            worse, better = int((safe_N & ~right_N).sum()), int((right_N & ~safe_N).sum())
            cheaper.append((mean_flops, worse, better, thresholds))
    for _, worse, better, thresholds in sorted(cheaper, key=itemgetter(0)):
        if drop_shown(worse, better, len(labels_N), target_drop, confidence):
            return (*thresholds, criterion.accept_all)
    return (*(math.nan,) * last, criterion.accept_all)


def _combinations(
    criterion: Criterion, scores_EN: Array, tried: Sequence[Sequence[float]]
) -> Iterator[tuple[tuple[float, ...], Array]]:
    """Every combination of thresholds, with the exit that each row takes."""
    last = len(scores_EN) - 1
    accepted = [[accepts(criterion, scores_EN[e], t) for t in tried[e]] for e in range(last)]
    for picks in itertools.product(*(range(len(t)) for t in tried)):
        taken_N = np.full(scores_EN.shape[1], last)
        for number in range(last - 1, -1, -1):
            taken_N[accepted[number][picks[number]]] = number
        yield tuple(tried[number][pick] for number, pick in enumerate(picks)), taken_N


def criterion_named(name: str) -> Criterion:
    """The criterion of that name, else ConfigError."""
    if name not in CRITERIA:
        raise ConfigError(f"calibration.criterion is {name!r}. It must be one of {', '.join(sorted(CRITERIA))}.")
    return CRITERIA[name]
