"""Every criterion through chains of tiers: what is served is what the criterion decides on the uncut network."""

import asyncio
from pathlib import Path

import pytest

from tests.networks import write_skip
from tests.serving.chains import ask, inputs, make_chain, make_request

POINTS = {"gate": {"criterion": "gate", "thresholds": [0.9, 0.7, 0.0]}}


@pytest.mark.parametrize("point", sorted(POINTS))
@pytest.mark.parametrize("stops", [(4,), (1, 4), (1, 3, 4)])
async def test_tiers_decide_as_the_criterion_does(tmp_path: Path, stops: tuple[int, ...], point: str) -> None:
    bundle, reference = write_skip(tmp_path, points=POINTS)
    device = make_chain(bundle, stops)[0]
    batches = [inputs(1 + seed % 7, seed) for seed in range(24)]
    results = await asyncio.gather(*(ask(device, make_request(bundle, x_BD, point=point)) for x_BD in batches))
    taken = set()
    for x_BD, answers in zip(batches, results, strict=True):
        wanted = reference.decide(x_BD, POINTS[point]["criterion"], POINTS[point]["thresholds"])
        assert [(a.label, a.exit) for a in answers] == wanted
        taken |= {exit for _, exit in wanted}
    assert taken == {0, 1, 2}
