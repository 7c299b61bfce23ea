"""Whether a tier runs what an operating point was measured for.

Accuracy, exit rates and guarantees hold for one configuration: the runtime and precision of the stages and
the cuts that were coded. A tier that differs may serve all the same, but must say so at start.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.config import SystemConfig
from common.manifest import Manifest
from common.runtimes import StageRunner


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
    coded = sorted(
        {
            tier.stop - 1
            for tier in system.tiers[:-1]
            if 0 < tier.stop < len(manifest.stages)
            and tier.stop - 1 not in manifest.input_cuts
            and any(tensor.codec != "raw" for tensor in manifest.cuts[tier.stop - 1])
        }
    )
    want_coded = measured.get("coded_cuts")
    if want_coded is not None and coded != sorted(want_coded):
        found.append(f"coded cuts are {coded} instead of {sorted(want_coded)}")
    return tuple(found)
