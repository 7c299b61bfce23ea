"""How often a certified promise is broken over many redraws, for the shipped bundles and harder inputs."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from pathlib import Path
from typing import Any

from calibration.guarantee_figures import DELTA, HEADER, Figure, figures, line, stored
from calibration.redraws import Verdict
from results.runs import Settings
from results.store import Store

TITLE = "Guarantees"
REDRAWS = 10_000
SEED = 0
_BUNDLES = Path(__file__).parent.parent / "bundles"
_POPULATIONS = tuple(itertools.product(("mnist-lenet", "fashion-mnist-resnet"), (0.0, 30.0)))  # bundle, noise


def train(store: Store, settings: Settings, *, bundles: Path = _BUNDLES, redraws: int = REDRAWS) -> None:
    """Redraw from every population that is not done yet; `noise` is a standard deviation in 0..255."""
    for name, noise in _POPULATIONS:
        step = f"{name}, noise {noise:g}"
        if (bundles / name).exists():
            store.once(step, lambda name=name, noise=noise: _redrawn(bundles / name, noise, redraws, settings))  # type: ignore[misc]


def time(store: Store, settings: Settings) -> None:
    """Nothing is timed."""


def _redrawn(bundle: Path, noise: float, redraws: int, settings: Settings) -> dict[str, Any]:
    population = stored(bundle, settings.data_dir, noise=noise, seed=SEED)
    found = figures(population, redraws=redraws, seed=SEED, report=print)
    return {"redraws": redraws, "seed": SEED, "figures": [asdict(figure) for figure in found]}


def section(steps: dict[str, dict[str, Any]]) -> str:
    """The table from what is stored."""
    found = [_figure(document) for step in steps.values() for document in step["figures"]]
    redraws = " or ".join(f"{count:,}" for count in sorted({step["redraws"] for step in steps.values()}))
    about = _ABOUT.format(redraws=redraws, seed=SEED, delta=DELTA, percent=100 * DELTA)
    return "\n".join([about, HEADER, *map(line, found)])


def _figure(document: dict[str, Any]) -> Figure:
    verdicts = {
        name: None if document[name] is None else Verdict(**document[name]) for name in ("guarded", "unguarded", "grid")
    }
    return Figure(**{**document, **verdicts})


_ABOUT = """\
Shares in percent. One redraw is a certify split of n rows drawn with replacement from the population;
{redraws} redraws per row of the table, seed {seed}, delta {delta:g}. *Broken*: redraws whose chosen rung has a
true mean loss above epsilon. *At least*: one-sided 99 % Clopper-Pearson lower limit of that share; the promise
holds as long as it does not exceed {percent:g} %. *Unguarded*: the cheapest rung whose mean loss on the drawn rows is
at most epsilon; *kept*: savings in FLOPs beside its savings. *Grid*: the same choice over a grid of thresholds.
*Hardest*: epsilon just below the true mean loss of a rung. *Rejected*: the check finds that a procedure breaks
the promise. *Noise*: standard deviation of normal noise added to the pixels, 0..255: inputs that the network finds
hard. See [guarantees.md](guarantees.md).
"""
