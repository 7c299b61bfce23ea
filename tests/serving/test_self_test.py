from pathlib import Path

import numpy as np
import pytest

from common.bundle import Bundle
from common.errors import BundleError
from common.serving.self_test import self_test
from common.types import Tensors
from tests.networks import write_skip
from tests.serving.chains import make_tier
from tests.serving.test_criteria_served import BIASES, PLAIN, WEIGHTS


@pytest.mark.parametrize(("start", "stop", "exit"), [(0, 1, 0), (0, 4, None), (2, 3, 1), (3, 4, 2)])
async def test_a_row_takes_the_way_of_every_request(tmp_path: Path, start: int, stop: int, exit: int | None) -> None:
    tier = make_tier(write_skip(tmp_path)[0], start, stop)
    answer = await self_test(tier, start)
    assert answer is not None and exit in (None, answer.exit) and answer.tier == tier.name
    text = tier.metrics.text().decode()
    assert "offramp_answers_total{" not in text  # nobody asked
    assert f'offramp_request_seconds_count{{tier="{tier.name}"}} 0.0' in text
    await tier.close()


@pytest.mark.parametrize("point", sorted(PLAIN))
async def test_a_tier_behind_an_exit_starts_whatever_its_operating_point_has_to_be_told(
    tmp_path: Path, point: str
) -> None:
    bundle = write_skip(tmp_path, points=PLAIN, combine=list(zip(WEIGHTS, BIASES, strict=True)))[0]
    for start, stop in ((0, 1), (1, 4), (2, 3), (3, 4)):
        tier = make_tier(bundle, start, stop)
        tier.operating_point = point
        answer = await self_test(tier, start)
        assert answer is not None and 0.0 <= answer.confidence <= 1.0
        await tier.close()


@pytest.mark.parametrize(("start", "stop"), [(1, 2), (0, 0), (2, 2)])
async def test_a_tier_without_an_exit_has_no_answer_to_give(tmp_path: Path, start: int, stop: int) -> None:
    tier = make_tier(write_skip(tmp_path)[0], start, stop)
    assert await self_test(tier, start) is None
    await tier.close()


class Broken:
    runtime, precision = "onnxruntime", "float32"

    def __init__(self, logits: float) -> None:
        self.logits = logits

    def run(self, tensors: Tensors) -> Tensors:
        if self.logits == 0:
            raise RuntimeError
        return {"h0": tensors["x"], "s": tensors["x"], "logits0": np.full((1, 5), self.logits, np.float32)}


@pytest.mark.parametrize("logits", [0.0, float("nan")])
async def test_a_tier_that_cannot_answer_does_not_start(tmp_path: Path, logits: float) -> None:
    bundle: Bundle = write_skip(tmp_path)[0]
    tier = make_tier(bundle, 0, 1)
    tier.batcher._runners = {0: Broken(logits)}
    with pytest.raises(BundleError, match="self-test got"):
        await self_test(tier, 0)
    await tier.close()
