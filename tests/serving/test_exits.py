from pathlib import Path

import pytest

from tests.networks import write_skip
from tests.serving.chains import ask, inputs, make_request, make_tier


@pytest.mark.parametrize("point", ["default", "full"])
@pytest.mark.parametrize("rows", [2, 8, 12, 13, 60])
async def test_answers_do_not_depend_on_who_shares_a_run(tmp_path: Path, rows: int, point: str) -> None:
    bundle, _ = write_skip(tmp_path)
    tier = make_tier(bundle, 0, 4)
    x_BD = inputs(rows)
    together = await ask(tier, make_request(bundle, x_BD, point=point, want_probabilities=True))
    for number, answer in enumerate(together):
        row = x_BD[number : number + 1]
        (alone,) = await ask(tier, make_request(bundle, row, point=point, want_probabilities=True))
        assert (answer.label, answer.exit) == (alone.label, alone.exit)
        assert answer.confidence == pytest.approx(alone.confidence, rel=1e-5)
        assert answer.probabilities == pytest.approx(alone.probabilities, rel=1e-5, abs=1e-7)
        assert max(answer.probabilities or ()) == pytest.approx(answer.confidence)
    await tier.close()
