"""The few values that every room passes around: requests, rows, answers, deadlines.

Tensor names carry their axes: B rows of a batch, C classes. The first axis of every tensor is the row.

What is made for every row or request has Final fields: the type checker keeps it as it is. At run time frozen=True
would do the same, and make each object three times as dear.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = dict[str, Array]  # name -> [B, ...]

RESERVE_S = 0.005  # kept back per hop, so that the nearer tier hears of trouble in time


class Degraded(StrEnum):
    """Why a row was answered from an earlier exit than its criterion asked for."""

    DEADLINE = "deadline"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    UPSTREAM_OVERLOADED = "upstream_overloaded"
    UPSTREAM_REJECTED = "upstream_rejected"


class Purpose(Enum):
    """What a request is for. Everything but ANSWER is shed first and never counted as an answer."""

    ANSWER = "answer"
    AUDIT = "audit"
    HEDGE = "hedge"
    PROBE = "probe"

    __hash__ = object.__hash__  # each member is one object; an enum's own hash is several times as dear


@dataclass(slots=True, unsafe_hash=True)
class Deadline:
    """A moment by which a request must be answered, on this machine's monotonic clock (seconds)."""

    at: Final[float]

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline that lies `seconds` from now."""
        return cls(time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds left; negative once it has passed."""
        return self.at - time.monotonic()


NEVER = Deadline(float("inf"))


@dataclass(slots=True, kw_only=True)
class Hop:
    """The time one tier spent on one row, in milliseconds."""

    tier: Final[str]
    queue_ms: Final[float] = 0.0
    compute_ms: Final[float] = 0.0
    network_ms: Final[float] = 0.0  # on the way to this tier and back


@dataclass(slots=True, kw_only=True)
class Answer:
    """What a tier returns for one row."""

    row: Final[int]  # the caller's row id
    label: Final[int]
    confidence: Final[float]  # calibrated probability of `label`
    exit: Final[int]
    tier: Final[str]  # who decided

    degraded: Final[Degraded | None] = None  # why a later exit was not asked
    hops: Final[tuple[Hop, ...]] = ()  # from the entry tier up to the one that decided
    probabilities: Final[tuple[float, ...] | None] = None  # calibrated, [C], when asked for

    def behind(self, hop: Hop) -> Answer:
        """The answer as the tier downstream passes it on: with its own hop in front."""
        return Answer(  # dataclasses.replace costs several times as much
            row=self.row,
            label=self.label,
            confidence=self.confidence,
            exit=self.exit,
            tier=self.tier,
            degraded=self.degraded,
            hops=(hop, *self.hops),
            probabilities=self.probabilities,
        )


@dataclass(slots=True, kw_only=True)
class Rows:
    """A batch with the caller's row ids."""

    ids: Final[tuple[int, ...]]
    tensors: Final[Tensors]  # the live tensors at `start_stage`
    state: Final[Tensors] = field(default_factory=dict)  # what the criterion carries from exit to exit

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(slots=True, kw_only=True)
class Request:
    """Everything that any tier needs to serve some rows. No tier keeps state between requests."""

    request_id: Final[str]
    rows: Final[Rows]

    # what to run
    bundle: Final[str]  # digest, "sha256:..."
    operating_point: Final[str]
    start_stage: Final[int] = 0
    thresholds: Final[tuple[float, ...]] = ()  # one per exit; empty: those of the operating point

    # how
    deadline: Final[Deadline] = NEVER
    forward: Final[bool] = True  # False: never leaves this tier
    want_probabilities: Final[bool] = False
    purpose: Final[Purpose] = Purpose.ANSWER
    traceparent: Final[str] = ""
