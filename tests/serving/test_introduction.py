from pathlib import Path

import pytest

from common.serving.introduction import doubts
from protos import tier_pb2 as pb
from tests.serving.test_input import write_forwarding


def reply(digest: str, start: int, stop: int, held: list[int]) -> pb.DescribeReply:
    stages = [pb.StageInfo(stage=stage) for stage in held]
    return pb.DescribeReply(bundle=digest, bundle_name="skip", start_stage=start, stop_stage=stop, stages=stages)


@pytest.mark.parametrize(
    ("start", "stop", "held", "said"),
    [
        (1, 4, [0, 1, 2, 3], []),
        (1, 4, [1, 2, 3], ["cut 0 forwards the input, and it lacks the files of stage 0"]),
        (3, 4, [3], ["cut 2 forwards the input, and it lacks the files of stage 0, 1, 2"]),
        (2, 4, [2, 3], []),  # cut 1 forwards activations
        (1, 1, [], []),  # a relay needs none
    ],
)
def test_stages_that_upstream_will_need(
    tmp_path: Path, start: int, stop: int, held: list[int], said: list[str]
) -> None:
    bundle, _ = write_forwarding(tmp_path, [0, 2])
    assert doubts(bundle, reply(bundle.digest, start, stop, held)) == said


def test_another_bundle(tmp_path: Path) -> None:
    bundle, _ = write_forwarding(tmp_path, [])
    (said,) = doubts(bundle, reply("sha256:ab", 1, 4, [1, 2, 3]))
    assert said == f"it serves bundle skip (sha256:ab), not {bundle.name}"
