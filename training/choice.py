"""Choose cuts: by name, by share of the FLOPs, or a number of exits spread evenly."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

from calibration.data.checks import some
from common.errors import ConfigError
from training.argument import ArgumentError
from training.cuts import Places
from training.modules import module_ends
from training.places import Cut

At = int | float | str | Sequence[str | float]

_NEAR = 0.15  # of the FLOPs: within it, fewer tensors and bytes count more than the exact share
_HALVING = 0.03  # of the FLOPs: how far from the share half the bytes may lead


def choose(places: Places, at: At) -> tuple[Cut, ...]:
    """The cuts that a user asked for, in order.

    Args:
        places: of the network.
        at: names of cuts or modules, and shares of the FLOPs between 0 and 1; or the number of exits with the
            last one, at even shares.

    Raises:
        ConfigError: for a cut that is not there or not legal, naming the nearest legal one.
    """
    if type(at) is int and at == 1:
        return ()  # the last exit alone
    if not places.cuts:
        reason = f": {places.closed[0].reason}" if places.closed else ", since its work is in one operation"
        raise ConfigError(f"The network cannot be cut anywhere{reason}.")
    if isinstance(at, int) and not isinstance(at, bool):
        if not 1 <= at <= len(places.cuts) + 1:
            raise ArgumentError("at", f"is {at}. It must be a number of exits from 1 to {len(places.cuts) + 1}.")
        at = [k / at for k in range(1, at)]
    at = [at] if isinstance(at, str | float) else at
    if isinstance(at, bool) or not isinstance(at, Sequence) or not at:
        raise ArgumentError("at", f"is {at!r}. It must be a list of cut names and shares, or a number of exits.")
    chosen: list[Cut] = []
    for wanted in sorted(at, key=lambda one: isinstance(one, int | float)):  # names first: shares make way
        chosen.append(_named(places, wanted, chosen) if isinstance(wanted, str) else _at_share(places, wanted, chosen))
    return tuple(sorted(chosen, key=lambda cut: cut.position))


def _named(places: Places, name: str, taken: Sequence[Cut]) -> Cut:
    for cut in places.cuts:
        if name == cut.name or name in cut.also:
            if cut in taken:
                raise ArgumentError("at", f"names the cut {cut.name!r} twice.")
            return cut
    for closed in places.closed:
        if name in closed.names:
            near = _nearest(places, closed.position)
            raise ConfigError(f"The network cannot be cut at {name!r}: {closed.reason}. {near}")
    last = module_ends(places.flow).last.get(name)
    if last is not None:
        side = "in front of" if last < places.cuts[0].position else "behind"
        raise ConfigError(f"A cut at {name!r} would leave nothing to compute {side} it. {_nearest(places, last)}")
    known = [other for cut in places.cuts for other in (cut.name, *cut.also)]
    near_names = difflib.get_close_matches(name, known, n=1)
    hint = f"The nearest name is {near_names[0]!r}" if near_names else f"There are {some(known)}"
    raise ConfigError(f"The network has no cut {name!r}. {hint}.")


def _nearest(places: Places, position: int) -> str:
    cut = min(places.cuts, key=lambda cut: (abs(cut.position - position), cut.position))
    return f"The nearest legal cut is {cut.name!r}."


def _at_share(places: Places, share: float, taken: Sequence[Cut]) -> Cut:
    """Near a share, the cut that the fewest tensors cross, then the nearest and narrowest; else the nearest."""
    if not isinstance(share, float | int) or not 0.0 < share < 1.0:
        raise ArgumentError("at", f"holds {share!r}. A share of the FLOPs must lie between 0 and 1.")
    free = [cut for cut in places.cuts if cut not in taken]
    if not free:
        raise ArgumentError("at", f"asks for more exits than the network has legal cuts, {len(places.cuts)}.")

    near = [cut for cut in free if abs(cut.share - share) <= _NEAR]
    if not near:
        return min(free, key=lambda cut: abs(cut.share - share))
    least = min(cut.bytes for cut in near)
    return min(
        near,
        key=lambda cut: (len(cut.tensors), abs(cut.share - share) + _HALVING * math.log2(cut.bytes / least)),
    )
