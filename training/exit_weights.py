"""How much each exit's loss counts: numbers of one's own, or a rule by name.

- equal: 1 for every exit.
- heavier-early: from 1.0 at the first exit down to 0.3 at the last, in even steps; what the first stages learn for
  their own exit helps the later ones, too (Teerapittayanon et al., "BranchyNet", 2016, for two exits).
- lighter-early: 0.3 for every early exit, 1 for the last; early exits only lend a hand (Szegedy et al., "Going Deeper
  with Convolutions", 2015; customary in the survey of Scardapane et al., 2020).
- ramp: an early exit's weight grows evenly over training from 0.01 to the share of the FLOPs that a row has cost
  when it leaves there; the last exit counts 1 (Kaya et al., "Shallow-Deep Networks", 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import PlainValidator

from common.errors import ConfigError
from training.cost import costs
from training.network import MultiExitNetwork

NAMES = ("equal", "heavier-early", "lighter-early", "ramp")
_LEAST, _LIGHT, _START = 0.3, 0.3, 0.01


def _checked(value: object) -> str | list[float]:
    if isinstance(value, str) and value in NAMES:
        return value
    numbers = list(value) if isinstance(value, list | tuple) else []
    if numbers and all(type(n) in (int, float) and 0 <= n < float("inf") for n in numbers) and sum(numbers) > 0:
        return [float(n) for n in numbers]
    raise ValueError(f"It must be {', '.join(NAMES)} or a list with a number from 0 for each exit, not all 0")


ExitWeights = Annotated[str | list[float], PlainValidator(_checked)]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One weight per exit, at the beginning and at the end of training."""

    first: tuple[float, ...]
    last: tuple[float, ...]

    def at(self, progress: float) -> tuple[float, ...]:
        """The weights when this share of training is done."""
        return tuple(a + progress * (b - a) for a, b in zip(self.first, self.last, strict=True))


def weights_for(wanted: str | list[float], network: MultiExitNetwork) -> Weights:
    """The weights of a network's exits.

    Raises:
        ConfigError: when a list does not have one number for each exit.
    """
    exits = len(network.exits)
    if isinstance(wanted, list):
        if len(wanted) != exits:
            raise ConfigError(f"training.exit_weights has {len(wanted)} numbers. The network has {exits} exits.")
        return _constant(wanted)
    early = exits - 1
    if wanted == "heavier-early":
        return _constant([1.0 - (1.0 - _LEAST) * k / max(early, 1) for k in range(exits)])
    if wanted == "lighter-early":
        return _constant([_LIGHT] * early + [1.0])
    if wanted == "ramp":
        cost = costs(network)
        shares = [flops / cost.leaving()[-1] for flops in cost.leaving()[:-1]]
        return Weights(first=(*[_START] * early, 1.0), last=(*shares, 1.0))
    return _constant([1.0] * exits)


def _constant(weights: list[float]) -> Weights:
    return Weights(first=tuple(weights), last=tuple(weights))
