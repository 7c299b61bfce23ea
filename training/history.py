"""The course of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What was measured after an epoch, on the validation split unless said otherwise."""

    number: int  # from 1, over all phases
    phase: str
    train_loss: float  # mean over the batches that it trained on
    loss: float  # what the phase judges its epochs by
    losses: tuple[float, ...]  # mean cross-entropy per exit
    accuracy: tuple[float, ...]  # per exit, 0..1

    @classmethod
    def of(cls, document: dict[str, Any]) -> Epoch:
        """From what `dataclasses.asdict` makes of it, through JSON."""
        return cls(**{**document, "losses": tuple(document["losses"]), "accuracy": tuple(document["accuracy"])})


@dataclass(frozen=True, kw_only=True)
class History:
    """The course of a training run; the network holds the weights of `best`, an epoch of the last phase."""

    epochs: tuple[Epoch, ...]
    best: Epoch
