from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.datasets import Examples
from calibration.ranges import bytes_per_row, data_range, fit_cut, raw
from calibration.served import Served
from calibration.whole import Whole
from common.bundle import Bundle
from common.manifest import CutTensor
from tests.networks import WIDTH, write_skip
from tests.synthetic import make_rows


def _rows(count: int = 300) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (count, WIDTH)).astype(np.float32)


def test_runs_all_exits_over_skipping_tensors(tmp_path: Path) -> None:
    bundle, reference = write_skip(tmp_path)
    x = _rows()
    examples = Examples(inputs={"x": x}, labels_N=np.zeros(len(x), np.int64), sha256={})
    for found, wanted in zip(Served(bundle).says(examples).logits, reference.logits(x), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_the_network_without_exits_gives_the_last_exit(tmp_path: Path) -> None:
    bundle, reference = write_skip(tmp_path)
    x = _rows(7)
    np.testing.assert_allclose(Whole(Served(bundle)).run({"x": x}), reference.logits(x)[-1], atol=1e-4)


def test_codes_are_seen_by_later_stages(tmp_path: Path) -> None:
    bundle, reference = write_skip(tmp_path, codec="u8", compression="zstd")
    x = _rows()
    served = Served(bundle)
    first, second, _ = served.logits_from(0, {"x": x})
    wanted = reference.logits(x)
    np.testing.assert_allclose(first, wanted[0], atol=1e-4)  # nothing was coded before it
    assert 1e-4 < np.abs(second - wanted[1]).max() < 1.0


def test_a_cut_hands_on_only_what_crosses_it(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    served = Served(bundle)
    live = {"x": _rows(3)}
    live = {**live, **served.run_stage(0, live)}
    assert set(served.cross(0, live)) == {"h0", "s"}


@pytest.mark.parametrize(("loss", "changed", "coarse"), [(-1.0, 1.0, False), (10.0, 1.0, True), (10.0, 0.0, False)])
def test_coarser_codes_where_they_may_cost_something(tiny: Path, loss: float, changed: float, coarse: bool) -> None:
    images, labels = make_rows(300, seed=9)
    served = Served(Bundle(tiny))
    live = {"image": images, **served.run_stage(0, {"image": images})}
    (how,) = fit_cut(served, 0, live, labels.astype(np.int64), loss=loss, changed=changed)
    low, high = data_range(live["h0"])
    assert how.low == low and how.high is not None
    assert how.high > 4 * high if coarse else how.high <= 4 * high
    if loss < 0:
        assert how.high == high
    if not changed:
        exact, coded = (served.logits_from(1, served.cross(0, live, [code])) for code in (raw(how), how))
        np.testing.assert_array_equal(exact[-1].argmax(axis=1), coded[-1].argmax(axis=1))
    plain = replace(how, high=high)
    assert bytes_per_row(live["h0"], how) <= bytes_per_row(live["h0"], plain)


def test_uncoded_tensors_get_no_range(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    served = Served(bundle)
    live = {"x": _rows(20)}
    live = {**live, **served.run_stage(0, live)}
    assert fit_cut(served, 0, live, np.zeros(20, np.int64), loss=1.0, changed=1.0) == (
        CutTensor(name="h0"), CutTensor(name="s")
    )  # fmt: skip


def test_a_constant_tensor_still_gets_a_range() -> None:
    assert data_range(np.zeros(5)) == (0.0, 1.0)
