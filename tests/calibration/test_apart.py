from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.apart import check_apart
from calibration.calibrate import calibrate
from calibration.datasets import open_data
from calibration.served import Served
from calibration.settings import DataSettings
from common.bundle import Bundle
from common.errors import ConfigError
from common.types import Tensors

SETTINGS = DataSettings(dataset="mnist", validation=300, calibration=400)


class Mixes:
    """A stage one of whose outputs is less by its mean over the batch."""

    def __init__(self, stage: Any, name: str) -> None:
        self.stage, self.name = stage, name

    def run(self, tensors: Tensors) -> Tensors:
        out: Tensors = self.stage.run(tensors)
        return out | {self.name: out[self.name] - out[self.name].mean(axis=0)}


@pytest.mark.parametrize(("stage", "name", "number"), [(0, "h0", 1), (0, "logits0", 0), (1, "logits1", 1)])
def test_a_bundle_whose_rows_mix_is_not_calibrated(
    tiny: Path, data: Path, monkeypatch: pytest.MonkeyPatch, stage: int, name: str, number: int
) -> None:
    rows = open_data(SETTINGS, data).splits.tune
    served = Served(Bundle(tiny))
    check_apart(served, rows)
    before = (tiny / "manifest.json").read_bytes()
    served.stages[stage] = Mixes(served.stages[stage], name)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match=f"Exit {number} answers a row differently"):
        check_apart(served, rows)
    monkeypatch.setattr("calibration.calibrate.Served", lambda *_, **__: served)
    with pytest.raises(ConfigError, match="answers a row differently"):
        calibrate(tiny, data)
    assert (tiny / "manifest.json").read_bytes() == before


def test_a_single_row_has_none_beside_it(tiny: Path, data: Path) -> None:
    check_apart(Served(Bundle(tiny)), open_data(SETTINGS, data).splits.tune.take(np.arange(1)))
