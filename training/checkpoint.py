"""The state of a training run on disk after every epoch, so that it goes on after the process was killed.

A run that was cut off and went on, with as many threads, ends with the same weights, bit for bit: weights, the
optimiser's moments, the random numbers' state and the best epoch so far are kept; rates follow from the step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from calibration.datasets import Examples
from common.errors import ConfigError
from common.types import Array
from training.arrays import read_arrays, reason_of, write_arrays
from training.history import Epoch
from training.network import MultiExitNetwork
from training.settings import TrainingSettings

_WHAT = "the state of a training"


@dataclass(kw_only=True)
class State:
    """How far a training run has come."""

    phase: int = 0
    done: int = 0  # epochs of this phase
    over: bool = False  # whether the phase ends here
    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None  # of this phase
    best_weights: dict[str, Tensor] = field(default_factory=dict)


class Checkpoint:
    """A file that holds the state of one training run.

    Args:
        path: of the file (.npz), there or not.
        network: as it is before training.
        splits: that it is trained and judged on.
        settings: of the training.
    """

    def __init__(
        self, path: Path, network: MultiExitNetwork, splits: tuple[Examples, ...], settings: TrainingSettings
    ) -> None:
        self.path = path
        self.network = network
        self.settings = settings
        self.run = {  # tells this run from others
            "network": _digest({name: value.numpy() for name, value in network.state_dict().items()}),
            "data": _digest(
                {f"{k}/{n}": a for k, s in enumerate(splits) for n, a in (*s.inputs.items(), ("", s.labels_N))}
            ),
            "settings": settings.model_dump(mode="json"),
        }

    def save(self, state: State, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        """Replace the file by the state after an epoch.

        Raises:
            ConfigError: when it cannot be written.
        """
        moments = optimizer.state_dict()["state"]
        arrays = {f"weights/{name}": value.numpy() for name, value in self.network.state_dict().items()}
        arrays |= {f"best/{name}": value.numpy() for name, value in state.best_weights.items()}
        arrays |= {f"moments/{k}/{name}": value.numpy() for k, one in moments.items() for name, value in one.items()}
        arrays |= {"random": torch.get_rng_state().numpy(), "batches": generator.get_state().numpy()}
        assert state.best is not None
        document = {
            "run": self.run,
            "phase": state.phase,
            "done": state.done,
            "over": state.over,
            "epochs": [asdict(epoch) for epoch in state.epochs],
            "best": asdict(state.best),
        }
        write_arrays(self.path, arrays, document)

    def load(self, generator: torch.Generator) -> Resumed | None:
        """Put weights and random numbers back as they were; None where there is no file.

        Raises:
            ConfigError: when the file is damaged, or belongs to another run.
        """
        if not self.path.exists():
            return None
        arrays, document = read_arrays(self.path, _WHAT)
        try:
            self._check(document["run"])
            state = State(
                phase=int(document["phase"]),
                done=int(document["done"]),
                over=bool(document["over"]),
                epochs=[Epoch.of(epoch) for epoch in document["epochs"]],
                best=Epoch.of(document["best"]),
                best_weights=_tensors(arrays, "best/"),
            )
            self.network.load_state_dict(_tensors(arrays, "weights/"))
            generator.set_state(torch.from_numpy(arrays["batches"]))
            torch.set_rng_state(torch.from_numpy(arrays["random"]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"{self.path} does not hold {_WHAT}: {reason_of(error)}") from None
        return Resumed(state=state, moments=_tensors(arrays, "moments/"))

    def remove(self) -> None:
        """Remove the file, if it is there."""
        self.path.unlink(missing_ok=True)

    def _check(self, run: Mapping[str, Any]) -> None:
        try:
            same = type(self.settings).model_validate(run["settings"]) == self.settings
        except ValidationError:
            same = False
        differs = [] if same else ["training settings"]
        differs += [f"{key}" for key in ("data", "network") if run[key] != self.run[key]]
        if differs:
            raise ConfigError(
                f"{self.path} holds the state of a training with other {' and other '.join(differs)}. "
                "Go on with those, or remove the file to train anew."
            )


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """What was read from a checkpoint."""

    state: State
    moments: Mapping[str, Tensor]  # of the optimiser, "INDEX/NAME"

    def restore(self, optimizer: torch.optim.Optimizer, parameters: tuple[nn.Parameter, ...]) -> None:
        """Give an optimiser its moments back, in the order of values in memory that its parameters have."""
        for key, value in self.moments.items():
            index, _, name = key.partition("/")
            parameter = parameters[int(index)]
            like = parameter.shape == value.shape
            kept = torch.empty_like(parameter, requires_grad=False) if like else torch.empty_like(value)
            optimizer.state[parameter][name] = kept.copy_(value)


def _tensors(arrays: Mapping[str, Array], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): torch.from_numpy(a) for n, a in arrays.items() if n.startswith(prefix)}


def _arrays(split: Examples) -> list[tuple[str, Array]]:
    return [*split.inputs.items(), ("", split.labels_N)]


def _digest(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
