"""What a request must bring of the exits that its rows have passed, so that later ones can decide."""

from __future__ import annotations

import numpy as np

from common.errors import Malformed
from common.manifest import Manifest
from common.rule import Rule, StateSpec
from common.types import Array, Tensors


def admit_state(manifest: Manifest, rule: Rule, start_stage: int, rows: int, state: Tensors) -> Tensors:
    """Pick the state that the rule needs from `start_stage` on; what it does not need is left behind.

    Raises:
        Malformed: when some of it is missing or no exit could have said it.
    """
    needed = _needed(manifest, rule, start_stage)
    for name, spec in needed.items():
        if name not in state:
            raise Malformed(
                f"State {name!r} is missing. Operating points of criterion {rule.criterion.name} need it from the "
                f"exits before stage {start_stage}.",
                "bad_state",
            )
        _check(name, spec, rows, state[name])
    return {name: state[name] for name in needed}


def some_state(manifest: Manifest, rule: Rule, start_stage: int, rows: int) -> Tensors:
    """State that exits could have said, for rows that came past none: label 0, which one exit gave, sure of nothing."""
    return {
        name: np.full((rows, *spec.shape), max(spec.low, 0.0), spec.dtype)
        for name, spec in _needed(manifest, rule, start_stage).items()
    }


def _needed(manifest: Manifest, rule: Rule, start_stage: int) -> dict[str, StateSpec]:
    return rule.state_before(sum(leave.stage < start_stage for leave in manifest.exits))


def _check(name: str, spec: StateSpec, rows: int, found: Array) -> None:
    shape = (rows, *spec.shape)
    if found.dtype.name != spec.dtype or found.shape != shape:
        raise Malformed(
            f"State {name!r} is {found.dtype.name} {list(found.shape)}. It must be {spec.dtype} {list(shape)}.",
            "bad_state",
        )
    if not (np.isfinite(found).all() and (found >= spec.low).all() and (found <= spec.high).all()):
        raise Malformed(
            f"State {name!r} holds a number that no exit could have said. "
            f"It must lie between {spec.low:g} and {spec.high:g}.",
            "bad_state",
        )
