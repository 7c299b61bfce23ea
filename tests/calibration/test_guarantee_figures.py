from pathlib import Path

import numpy as np
import pytest

from calibration.calibrate import calibrate
from calibration.guarantee_figures import CELLS, HEADER, figures, grid_population, line, stored
from calibration.risks import risk_named
from common.errors import ConfigError


@pytest.fixture
def calibrated(tiny: Path, data: Path) -> Path:
    calibrate(tiny, data)
    return tiny


def test_the_promise_holds_and_what_breaks_it_is_seen(calibrated: Path, data: Path) -> None:
    found = list(figures(stored(calibrated, data), redraws=300))
    assert all(figure.guarded.holds for figure in found)
    hardest = [figure for figure in found if figure.hardest]
    assert {(figure.risk, figure.rows) for figure in hardest} == {
        (risk, rows) for risk in ("accuracy-gap", "disagreement") for rows in CELLS
    }
    assert all(not figure.unguarded.holds for figure in hardest if figure.risk == "disagreement")
    for figure in found:
        assert line(figure).count("|") == HEADER.splitlines()[0].count("|")
        assert figure.guarded.savings <= figure.unguarded.savings + 1e-9
        assert (figure.grid is not None) == figure.hardest


def test_the_grid_holds_every_combination(calibrated: Path, data: Path) -> None:
    of = stored(calibrated, data)
    grid = grid_population(of, risk_named("disagreement"))
    assert 100 < len(grid.flops_K) <= 510
    assert {grid.flops_K.min(), grid.flops_K.max()} == {float(of.flops_E[0]), float(of.flops_E[-1])}


def test_noise_makes_it_harder_and_is_repeatable(calibrated: Path, data: Path) -> None:
    clean, noisy, again = (stored(calibrated, data, noise=noise, seed=1) for noise in (0.0, 60.0, 60.0))
    differs = [np.mean(of.rows[1].answers[0] != of.rows[1].reference_N) for of in (clean, noisy, again)]
    assert differs[0] < differs[1] == differs[2]
    assert noisy.name == "tiny, noise 60"


def test_noise_on_floats_is_refused(tmp_path: Path) -> None:
    from calibration.datasets import Examples
    from calibration.guarantee_figures import _noisy

    rows = Examples(inputs={"x": np.zeros((2, 3), np.float32)}, labels_N=np.zeros(2, int), sha256={})
    with pytest.raises(ConfigError, match=r"Noise is added to bytes only\. Input 'x' is float32"):
        _noisy(rows, 1.0, np.random.default_rng(0))
