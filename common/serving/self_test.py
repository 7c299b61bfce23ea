"""One answer before a tier reports ready: a row goes the way of every request, through queue, stages and exits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from common.errors import BundleError, RequestError
from common.rule import Rule
from common.runtimes.runner import zeros
from common.serving.state import some_state
from common.serving.tier import Tier
from common.types import Answer, Purpose, Request, Rows


async def self_test(tier: Tier, start: int) -> Answer | None:
    """Answer a row of zeros, which never leaves the tier and counts as no caller's.

    Args:
        tier: all of it but the doors.
        start: the first stage of its range.

    Returns:
        The answer; None for a tier without an exit, which could not give one.

    Raises:
        BundleError: when there is no answer, or no finite confidence in it.
    """
    manifest = tier.bundle.manifest
    if not any(start <= leave.stage < tier.stop for leave in manifest.exits):
        return None
    live = zeros(manifest, start, 1, manifest.live(start))
    rule = Rule.of(manifest, manifest.operating_points[tier.operating_point])
    request = Request(
        request_id="self-test",
        rows=Rows(ids=(0,), tensors=live, state=some_state(manifest, rule, start, 1)),
        bundle=tier.bundle.digest,
        operating_point=tier.operating_point,
        start_stage=start,
        forward=False,
        purpose=Purpose.PROBE,
    )
    found: list[Answer] = []

    def deliver(answers: Sequence[Answer]) -> None:
        found.extend(answers)

    try:
        await tier.answer(request, deliver)
    except RequestError as error:
        raise BundleError(f"{tier.bundle.root}: the self-test got no answer: {error}") from None
    if len(found) != 1 or not math.isfinite(found[0].confidence):
        raise BundleError(f"{tier.bundle.root}: the self-test got {found} instead of one answer.")
    return found[0]
