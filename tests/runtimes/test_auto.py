"""`runtime: auto`, on a clock of the test's own."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from common.bundle import Bundle
from common.errors import BundleError, ConfigError
from common.runtimes import Loader, StageRunner, openvino
from common.runtimes.auto import BUDGET_S, ROUNDS, fastest
from common.serving.stages import load_stages
from common.types import Tensors
from tests.networks import write_skip


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """A runtime that takes so long per run, and so long per row."""

    precision = "float32"

    def __init__(self, clock: Clock, name: str, per_run: float, per_row: float) -> None:
        self.runtime = name
        self.runs: list[int] = []
        self._clock, self._per_run, self._per_row = clock, per_run, per_row

    def run(self, tensors: Tensors) -> Tensors:
        rows = len(next(iter(tensors.values())))
        self.runs.append(rows)
        self._clock.now += self._per_run + rows * self._per_row
        return {}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_skip(tmp_path)[0]


def among(*runners: StageRunner) -> Callable[[str], Mapping[str, Loader]]:
    loaders: dict[str, Loader] = {r.runtime: lambda bundle, stage, threads, r=r: r for r in runners}  # type: ignore[misc]
    return lambda precision: loaders if precision == "float32" else {}


def absent(bundle: Bundle, stage: int, threads: int) -> StageRunner:
    raise ConfigError("OpenVINO is not installed.")


def test_the_one_that_is_faster_for_one_row_and_for_many(bundle: Bundle) -> None:
    clock = Clock()
    slow, quick = Fake(clock, "onnxruntime", 2e-3, 1e-4), Fake(clock, "openvino", 1e-3, 1e-4)
    assert fastest(bundle, [0, 1], 1, candidates=among(slow, quick), clock=clock) == "openvino"
    assert len(quick.runs) == 2 + 2 * 2 * ROUNDS == len(slow.runs), "each stage, for each size, in each round"


def test_both_sizes_count(bundle: Bundle) -> None:
    clock = Clock()
    for_one, for_many = Fake(clock, "onnxruntime", 1e-4, 1e-3), Fake(clock, "openvino", 3e-4, 1e-5)
    assert fastest(bundle, [0], 1, candidates=among(for_one, for_many), clock=clock) == "openvino"


def test_slow_stages_are_measured_briefly(bundle: Bundle) -> None:
    clock = Clock()
    slow, slower = Fake(clock, "onnxruntime", 0, 0.3), Fake(clock, "openvino", 0, 0.4)
    assert fastest(bundle, [0], 1, candidates=among(slower, slow), clock=clock) == "onnxruntime"
    assert set(slow.runs) == {1} and clock.now < 2 * BUDGET_S + 1


def test_what_is_not_here_is_left_out(bundle: Bundle) -> None:
    clock = Clock()
    only = Fake(clock, "onnxruntime", 1, 0)
    found = fastest(bundle, [0], 1, candidates=lambda _: {**among(only)("float32"), "openvino": absent}, clock=clock)
    assert found == "onnxruntime" and only.runs == [1], "it runs, and there is nothing to compare"


def test_a_damaged_stage_is_no_matter_of_speed(bundle: Bundle) -> None:
    def damaged(bundle: Bundle, stage: int, threads: int) -> StageRunner:
        raise BundleError("stage0.onnx is missing.")

    with pytest.raises(BundleError):
        fastest(bundle, [0], 1, candidates=lambda _: {"onnxruntime": damaged})


def test_one_that_cannot_run_a_stage_is_left_out(bundle: Bundle) -> None:
    class Broken(Fake):
        def run(self, tensors: Tensors) -> Tensors:
            raise RuntimeError("no kernel for this")

    clock = Clock()
    broken, good = Broken(clock, "onnxruntime", 0, 0), Fake(clock, "openvino", 1, 0)
    assert fastest(bundle, [0], 1, candidates=among(broken, good), clock=clock) == "openvino"
    assert fastest(bundle, [0], 1, candidates=among(broken), clock=clock) == "onnxruntime", "whose self-test tells why"


def test_the_calibrated_precision_is_kept_where_it_can_be(bundle: Bundle) -> None:
    clock = Clock()
    quick, exact = Fake(clock, "openvino-bf16", 1e-4, 0), Fake(clock, "onnxruntime", 1e-3, 0)
    by_precision: dict[str, Mapping[str, Loader]] = {
        "float32": {"onnxruntime": lambda *_: exact},
        "bfloat16": {"openvino-bf16": lambda *_: quick},
    }
    assert fastest(bundle, [0], 1, candidates=by_precision.__getitem__, clock=clock) == "onnxruntime"
    assert fastest(bundle, [0], 1, precision="bfloat16", candidates=by_precision.__getitem__) == "openvino-bf16"
    by_precision["bfloat16"] = {"openvino-bf16": absent}
    assert fastest(bundle, [0], 1, precision="bfloat16", candidates=by_precision.__getitem__) == "onnxruntime"


def test_a_relay_measures_nothing(bundle: Bundle) -> None:
    assert fastest(bundle, [], 1, candidates=lambda _: {}) == "onnxruntime"


def test_a_tier_takes_what_auto_says(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "installed", lambda: False)
    runners = load_stages(bundle, start=1, stop=3, runtime="auto", threads=1)
    assert {(k, r.runtime, r.precision) for k, r in runners.items()} == {
        (k, "onnxruntime", "float32") for k in range(3)
    }


@pytest.mark.openvino
def test_auto_with_openvino_beside_onnxruntime(bundle: Bundle) -> None:
    runners = load_stages(bundle, start=0, stop=4, runtime="auto", threads=1)
    assert len({r.runtime for r in runners.values()}) == 1
    assert {r.precision for r in runners.values()} == {"float32"}
    if openvino.supports("bfloat16"):
        runners = load_stages(bundle, start=0, stop=4, runtime="auto", threads=1, precision="bfloat16")
        assert {(r.runtime, r.precision) for r in runners.values()} == {("openvino", "bfloat16")}
