"""Whether a tier runs what an operating point was measured for.

Accuracy, exit rates and guarantees hold for one configuration: the runtime and precision of the stages and
the cuts that were coded. A tier that differs may serve all the same, but must say so at start. A certificate
(`docs/guarantees.md`) also names the stage files, temperatures, codes and thresholds that it was issued for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from common.config import SystemConfig
from common.manifest import Combination, CutTensor, FittedGate, Manifest, coded_cuts
from common.runtimes import StageRunner


def without_guarantee(
    system: SystemConfig, manifest: Manifest, runners: Mapping[int, StageRunner]
) -> list[tuple[str, str]]:
    """What a tier must say at start: operating points and how this system differs from theirs.

    The configured point counts, and every other one with a certificate, since a request may ask for it.
    """
    certified = {name for name, point in manifest.operating_points.items() if point.guarantee is not None}
    names = sorted(certified | {system.operating_point})
    return [(name, difference) for name in names for difference in differences(system, manifest, runners, name)]


def guarantees(system: SystemConfig, manifest: Manifest, runners: Mapping[int, StageRunner]) -> dict[str, bool]:
    """Of the operating points with a certificate, whether it holds for what this tier runs."""
    certified = [name for name, point in manifest.operating_points.items() if point.guarantee is not None]
    return {name: not differences(system, manifest, runners, name) for name in certified}


def differences(
    system: SystemConfig, manifest: Manifest, runners: Mapping[int, StageRunner], name: str
) -> tuple[str, ...]:
    """How this system differs from the configuration of operating point `name`, one phrase each."""
    measured = manifest.operating_points[name].configuration
    if measured is None:
        return ("it was measured for no configuration",)
    found: list[str] = []
    for what in ("runtime", "precision"):
        want = measured.get(what)
        have = sorted({getattr(runner, what) for runner in runners.values()})
        if want is not None and have not in ([], [want]):
            found.append(f"{what} is {', '.join(have)} instead of {want}")
    crossed = [tier.stop - 1 for tier in system.tiers[:-1] if 0 < tier.stop < len(manifest.stages)]
    coded = coded_cuts(manifest.cuts, manifest.input_cuts, crossed)
    want_coded = measured.get("coded_cuts")
    if want_coded is not None and coded != sorted(want_coded):
        found.append(f"coded cuts are {coded} instead of {sorted(want_coded)}")
    found += _outdated(manifest, name)
    return tuple(found)


def _outdated(manifest: Manifest, name: str) -> list[str]:
    """Why an operating point's certificate does not speak of this bundle, one phrase each."""
    point = manifest.operating_points[name]
    if point.guarantee is None:
        return []
    if point.guarantee.get("certified") is False:
        return ["nothing could be certified for it"]
    issued_for = point.guarantee.get("configuration")
    if not isinstance(issued_for, Mapping):
        return ["its certificate names no configuration"]
    served: dict[str, Any] = {
        "stages": [stage.sha256 for stage in manifest.stages],
        "cuts": [[_code(how) for how in cut] for cut in manifest.cuts],
        "input_cuts": sorted(manifest.input_cuts),
        "temperatures": [leave.temperature for leave in manifest.exits],
        "criterion": point.criterion,
        "combine": None if point.combine == "none" else point.combine,
        "combinations": None if point.combine == "none" else [_numbers(leave.combine) for leave in manifest.exits],
        "gates": [_numbers(gate) for gate in point.gates] or None,
        "thresholds": [None if math.isnan(threshold) else threshold for threshold in point.thresholds],
    }
    return [f"its certificate was issued for other {what}" for what in served if issued_for.get(what) != served[what]]


def _numbers(fitted: Combination | FittedGate | None) -> dict[str, Any] | None:
    """What was fitted, as manifest.json and a certificate write it."""
    if fitted is None:
        return None
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(fitted).items()}


def _code(how: CutTensor) -> dict[str, Any]:
    """A tensor's code as manifest.json and a certificate write it."""
    code: dict[str, Any] = {"name": how.name, "codec": how.codec, "compression": how.compression}
    for end, value in (("low", how.low), ("high", how.high)):
        if value is not None:
            code[end] = list(value) if isinstance(value, tuple) else value
    return code
