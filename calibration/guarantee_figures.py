"""Measure a guarantee by redrawing: how often it is broken, and what it costs beside an unguarded choice.

The ladder comes from a bundle's tune split, the population is its certify split, both as they are served. The
test split stays closed. `noise` makes a harder population from the same files: real answers of the network on
inputs that it finds difficult.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from calibration.datasets import Examples, divide, load_train
from calibration.document import recipe_section
from calibration.guarantee import Split, judged
from calibration.ladder import Ladder, build_ladder
from calibration.redraws import Population, Verdict, fixed_sequence, judge, plug_in, population
from calibration.risks import RISKS, Answered, Risk
from calibration.served import Served
from calibration.settings import DataSettings
from calibration.thresholds import ExitScores, candidates, exit_flops, exits_taken
from common.bundle import Bundle
from common.criteria import Criterion
from common.errors import ConfigError
from common.rule import Rule
from common.types import Array

DELTA = 0.1
CELLS = {100: (0.03, 0.05, 0.1), 1000: (0.01, 0.02, 0.05), 5000: (0.01, 0.02, 0.05)}  # rows -> epsilons
_GRID = 500  # points of the planted grid search, at most


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Rows whose every answer is known, and other rows that ladders are fixed on."""

    name: str
    criterion: Criterion
    flops_E: Array
    tune: tuple[ExitScores, Answered]
    rows: tuple[ExitScores, Answered]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table."""

    population: str
    risk: str
    rows: int
    epsilon: float
    hardest: bool  # epsilon lies just below a rung's true mean loss
    guarded: Verdict
    unguarded: Verdict  # the cheapest rung whose mean loss on the drawn rows is at most epsilon
    grid: Verdict | None  # the same over a grid of thresholds

    @property
    def kept(self) -> float:
        """Savings beside those of the unguarded choice."""
        return self.guarded.savings / self.unguarded.savings if self.unguarded.savings else 1.0


def stored(bundle_dir: Path, data_dir: Path | None, *, noise: float = 0.0, seed: int = 0) -> Stored:
    """Answers of a bundle to its tune and certify splits.

    Args:
        bundle_dir: the bundle, calibrated.
        data_dir: see `calibration.datasets.load_train`.
        noise: standard deviation of normal noise added to inputs of bytes, 0..255.
        seed: of the noise.

    Raises:
        ConfigError: when noise is asked for and the inputs are no bytes.
    """
    bundle = Bundle(bundle_dir)
    settings = recipe_section(bundle, "data", DataSettings)
    splits = divide(load_train(settings, data_dir), settings)
    served = Served(bundle)
    rule = Rule.of(bundle.manifest, bundle.manifest.operating_points["default"])
    rng = np.random.Generator(np.random.PCG64(seed))

    def answers(examples: Examples) -> tuple[ExitScores, Answered]:
        seen = _noisy(examples, noise, rng) if noise else examples
        return judged(served, rule, Split(examples=seen, said=served.says(seen)))

    return Stored(
        name=f"{bundle.manifest.name}, noise {noise:g}" if noise else bundle.manifest.name,
        criterion=rule.criterion,
        flops_E=exit_flops(bundle.manifest),
        tune=answers(splits.tune),
        rows=answers(splits.certify),
    )


def figures(
    of: Stored, *, redraws: int, seed: int = 0, report: Callable[[str], None] = lambda text: None
) -> Iterator[Figure]:
    """Every cell of the table for one population; `report` takes one line per row of the table."""
    for risk in RISKS.values():
        ladder = build_ladder(of.criterion, *of.tune, risk, of.flops_E)
        rungs = ladder_population(ladder, of.rows, risk, of.flops_E)
        grid = grid_population(of, risk)
        for rows, epsilons in CELLS.items():
            above = rungs.risks_K[rungs.risks_K >= min(epsilons)]
            cells = [(epsilon, False) for epsilon in epsilons]
            cells += [(float(above[0]) - 1e-9, True)] if len(above) else []
            for epsilon, hardest in cells:
                how = {"rows": rows, "redraws": redraws, "seed": seed}
                figure = Figure(
                    population=of.name,
                    risk=risk.name,
                    rows=rows,
                    epsilon=epsilon,
                    hardest=hardest,
                    guarded=judge(fixed_sequence, rungs, risk, epsilon=epsilon, delta=DELTA, **how),
                    unguarded=judge(plug_in, rungs, risk, epsilon=epsilon, delta=DELTA, **how),
                    grid=judge(plug_in, grid, risk, epsilon=epsilon, delta=DELTA, **how) if hardest else None,
                )
                report(line(figure))
                yield figure


def ladder_population(ladder: Ladder, rows: tuple[ExitScores, Answered], risk: Risk, flops_E: Array) -> Population:
    """Rows to draw from, with the losses of every rung."""
    scores, answers = rows
    taken = [ladder.exits_taken(scores, rung) for rung in range(len(ladder))]
    return population(
        ladder.losses(scores, answers, risk),
        np.array([flops_E[taken_N].mean() for taken_N in taken]),
        float(flops_E[-1]),
        ladder.aims_K,
    )


def grid_population(of: Stored, risk: Risk) -> Population:
    """Rows to draw from, with the losses of every combination of some thresholds per exit."""
    early = len(of.flops_E) - 1
    per_exit = max(1, int(_GRID ** (1.0 / max(early, 1))) - 2)
    tried = [candidates(of.criterion, scores_N, per_exit) for scores_N in of.tune[0].scores_EN[:-1]]
    scores, answers = of.rows
    losses_EN = risk.losses(answers)
    taken = [
        exits_taken(of.criterion, scores.scores_EN, (*limits, of.criterion.accept_all))
        for limits in itertools.product(*tried)
    ]
    return population(
        np.stack([losses_EN[taken_N, np.arange(len(taken_N))] for taken_N in taken]),
        np.array([of.flops_E[taken_N].mean() for taken_N in taken]),
        float(of.flops_E[-1]),
        (0.0,) * len(taken),
    )


HEADER = (
    "| population | risk | n | epsilon | broken % | at least % | holds | saves % | unguarded saves % | kept % | "
    "unguarded broken % | grid broken % |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def line(figure: Figure) -> str:
    """A figure as a row under `HEADER`."""

    def broken(verdict: Verdict | None) -> str:
        if verdict is None:
            return "-"
        return f"{100 * verdict.rate:.2f}{'' if verdict.holds else ' (rejected)'}"

    guarded = figure.guarded
    cells = [
        figure.population,
        figure.risk,
        f"{figure.rows:,}",
        f"{figure.epsilon:.4f}{' (hardest)' if figure.hardest else ''}",
        f"{100 * guarded.rate:.2f}",
        f"{100 * guarded.lower_limit:.2f}",
        "yes" if guarded.holds else "NO",
        f"{100 * guarded.savings:.1f}",
        f"{100 * figure.unguarded.savings:.1f}",
        f"{100 * figure.kept:.1f}",
        broken(figure.unguarded),
        broken(figure.grid),
    ]
    return f"| {' | '.join(cells)} |"


def _noisy(examples: Examples, noise: float, rng: np.random.Generator) -> Examples:
    inputs = {}
    for name, array in examples.inputs.items():
        if array.dtype != np.uint8:
            raise ConfigError(f"Noise is added to bytes only. Input {name!r} is {array.dtype.name}.")
        added = array + rng.normal(0.0, noise, array.shape)
        inputs[name] = np.clip(np.rint(added), 0, 255).astype(np.uint8)
    return replace(examples, inputs=inputs)
