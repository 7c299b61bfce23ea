"""What upstream says of itself, against what will be asked of it: an early warning, nothing more."""

from __future__ import annotations

from common.bundle import Bundle
from protos import tier_pb2 as pb


def doubts(bundle: Bundle, upstream: pb.DescribeReply) -> list[str]:
    """Why upstream will refuse what is forwarded to it, one phrase each."""
    if upstream.bundle != bundle.digest:
        return [f"it serves bundle {upstream.bundle_name} ({upstream.bundle}), not {bundle.name}"]
    relay = upstream.start_stage == upstream.stop_stage
    if relay or upstream.start_stage - 1 not in bundle.manifest.input_cuts:
        return []
    held = {info.stage for info in upstream.stages}
    missing = [str(stage) for stage in range(upstream.start_stage) if stage not in held]
    if not missing:
        return []
    return [f"cut {upstream.start_stage - 1} forwards the input, and it lacks the files of stage {', '.join(missing)}"]
