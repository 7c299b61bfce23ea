"""Operating points of every kind from one recipe, and what a wrong one is told."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.calibrate import calibrate, load_points
from calibration.datasets import divide, load_test, load_train
from calibration.evaluate import evaluate
from calibration.served import Served
from calibration.settings import CalibrationSettings, DataSettings, parse_section
from calibration.thresholds import ExitScores, exits_taken
from common.bundle import Bundle
from common.criteria import CRITERIA
from common.errors import ConfigError
from common.rule import Rule
from common.serving.configuration import differences, guarantees
from tests.serving.chains import ask, make_chain
from tests.synthetic import recipe, write_tiny

POINTS: list[dict[str, Any]] = [
    {"name": "patient", "criterion": "patience", "thresholds": [None]},
    {"name": "quick", "criterion": "entropy", "thresholds": [0.5]},
    {"name": "cheap", "criterion": "margin", "budget": 0.7},
    {"name": "gated", "criterion": "gate", "target_drop": 0.05},
    {"name": "together", "combine": "all", "target_drop": 0.03},
    {"name": "sure", "criterion": "gate", "combine": "early", "guarantee": {"epsilon": 0.1}},
    {"name": "sure-patience", "criterion": "patience", "guarantee": {"epsilon": 0.1, "risk": "accuracy-gap"}},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    root = write_tiny(tmp_path_factory.mktemp("made") / "tiny", calibration={"points": POINTS})
    calibrate(root, data)
    return root


def test_every_point_is_there_and_says_how_it_decides(made: Path) -> None:
    manifest = Bundle(made).manifest
    points = manifest.operating_points
    assert set(points) == {"default", "full", *(point["name"] for point in POINTS)}
    for point in POINTS:
        found = points[point["name"]]
        assert found.criterion == point.get("criterion", "max-probability")
        assert found.combine == point.get("combine", "none")
        assert found.measured is not None and found.measured["split"] == "certify"
    assert points["quick"].thresholds == (0.5, 1.0) and math.isnan(points["patient"].thresholds[0])
    assert points["gated"].gates[0] is not None and points["gated"].gates != points["sure"].gates
    assert all(leave.combine is not None for leave in manifest.exits)
    assert points["sure"].guarantee is not None and points["sure"].guarantee["configuration"]["combine"] == "early"


def test_a_tier_answers_what_was_measured(made: Path, data: Path) -> None:
    """The whole way: what two tiers answer on the test split is what `evaluate` says of every point."""
    import asyncio

    from common.types import NEVER, Request, Rows

    bundle = Bundle(made)
    settings = DataSettings(**recipe()["data"])
    test = load_test(settings, data)
    found = evaluate(made, data, latency_rows=0)["operating_points"]
    device = make_chain(bundle, (1, 2))[0]

    async def answers(point: str) -> list[Any]:
        rows = Rows(ids=tuple(range(len(test))), tensors=dict(test.inputs))
        request = Request(request_id=point, rows=rows, bundle=bundle.digest, operating_point=point, deadline=NEVER)
        return await ask(device, request)

    for name in bundle.manifest.operating_points:
        said = asyncio.run(answers(name))
        right = np.mean([a.label == label for a, label in zip(said, test.labels_N, strict=True)])
        rates = np.bincount([a.exit for a in said], minlength=2) / len(test)
        assert right == pytest.approx(found[name]["accuracy"], abs=0.011)  # in-process tiers code nothing
        assert rates == pytest.approx(found[name]["exit_rates"], abs=0.011)


def test_certified_losses_are_those_of_the_rows(made: Path, data: Path) -> None:
    bundle = Bundle(made)
    settings = DataSettings(**recipe()["data"])
    rows = divide(load_train(settings, data), settings).certify
    said = Served(bundle).says(rows)
    for name in ("sure", "sure-patience"):
        point = bundle.manifest.operating_points[name]
        rule = Rule.of(bundle.manifest, point)
        scores = ExitScores.of(said, rule)
        taken = exits_taken(rule.criterion, scores.scores_EN, point.thresholds)
        assert point.measured is not None
        right = scores.labels_EN[taken, np.arange(len(taken))] == rows.labels_N
        assert point.measured["accuracy"] == pytest.approx(right.mean(), abs=1e-6)
        assert point.guarantee is not None and point.guarantee["certified"] is True
        assert point.guarantee["configuration"]["criterion"] == point.criterion


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda d: d["operating_points"]["sure"]["gates"][0].update(bias=9.0), "other gates"),
        (lambda d: d["operating_points"]["sure"].pop("combine"), "other combine"),
        (lambda d: d["exits"][0]["combine"]["weights"].__setitem__(0, 0.5), "other combinations"),
    ],
)
def test_a_certificate_names_gates_and_combinations(tmp_path: Path, made: Path, change: Any, phrase: str) -> None:
    import shutil
    from types import SimpleNamespace

    root = shutil.copytree(made, tmp_path / "changed")
    document = json.loads((root / "manifest.json").read_text())
    system: Any = SimpleNamespace(tiers=[SimpleNamespace(stop=1), SimpleNamespace(stop=2)], operating_point="default")
    assert guarantees(system, Bundle(root).manifest, {}) == {"sure": True, "sure-patience": True}
    change(document)
    (root / "manifest.json").write_text(json.dumps(document))
    assert guarantees(system, Bundle(root).manifest, {})["sure"] is False
    assert any(phrase in said for said in differences(system, Bundle(root).manifest, {}, "sure"))


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        ({"name": "a"}, "exactly one of target_drop, budget, thresholds, guarantee"),
        ({"name": "a", "budget": 0.5, "target_drop": 0.1}, "exactly one of"),
        ({"name": "full", "budget": 0.5}, "'full' is every row at the last exit"),
        ({"name": "a", "budget": 1.5}, "budget is 1.5. It must be at most 1."),
        ({"name": "a", "criterion": "luck", "budget": 0.5}, "'max-probability', 'entropy'"),
        ({"name": "a", "budjet": 0.5}, "budjet is not a known key. Did you mean budget"),
    ],
)
def test_a_wrong_point_is_named(point: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_section(CalibrationSettings, {"points": [point]}, "recipe.yaml")


def test_a_name_twice_is_refused() -> None:
    twins = [{"name": "a", "budget": 0.5}, {"name": "a", "budget": 0.6}]
    with pytest.raises(ConfigError, match="'a' appears twice"):
        parse_section(CalibrationSettings, {"points": twins}, "recipe.yaml")


@pytest.mark.parametrize(
    ("name", "said"), [("sure", "'sure' appears twice"), ("full", "'full' is every row at the last exit")]
)
def test_a_guarantee_is_not_lost_to_a_point_of_its_name(name: str, said: str) -> None:
    section = {"guarantee": {"epsilon": 0.1, "name": name}, "points": [{"name": "sure", "budget": 0.5}]}
    with pytest.raises(ConfigError, match=said):
        parse_section(CalibrationSettings, section, "recipe.yaml")
    with pytest.raises(ConfigError, match="'full' is every row"):
        parse_section(CalibrationSettings, {"guarantee": {"epsilon": 0.1, "name": "full"}}, "recipe.yaml")


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"criterion": "luck"}, "criterion is 'luck'. It must be 'max-probability', 'entropy', "),
        ({"target_drop": "1%"}, "target_drop is '1%'. It must be a number."),
        ({"target_drop": 5}, "target_drop is 5. It must be below 1."),
        ({"guarantee": {"epsilon": 0}}, "guarantee.epsilon is 0. It must be above 0."),
        ({"points": [{"name": 3, "budget": 0.5}]}, "points.0.name is 3. It must be text."),
        ({"points": [{"name": "a", "thresholds": ["x"]}]}, "points.0.thresholds.0 is 'x'. It must be a number."),
    ],
)
def test_what_a_value_must_be_is_said_in_our_words(section: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_section(CalibrationSettings, section, "r.yaml")
    assert str(caught.value).startswith(f"r.yaml: {sentence}")


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        ({"name": "a", "thresholds": [0.5, 0.5]}, "'a' gives 2 thresholds. It needs 1"),
        ({"name": "a", "thresholds": [1.5]}, "'a': A max-probability threshold is 1.5"),
        ({"name": "a", "criterion": "patience", "thresholds": [1.5]}, "whole number from 1"),
        ({"name": "a", "budget": 0.01}, "'a': a budget of 0.01 of the network's FLOPs cannot be met"),
    ],
)
def test_a_point_that_cannot_be_had_changes_nothing(
    tmp_path: Path, data: Path, point: dict[str, Any], sentence: str
) -> None:
    root = write_tiny(tmp_path / "tiny", calibration={"points": [point]})
    before = (root / "manifest.json").read_bytes()
    said: list[str] = []
    with pytest.raises(ConfigError, match=sentence):
        calibrate(root, data, report=said.append)
    assert not said  # nothing was fitted for it
    assert (root / "manifest.json").read_bytes() == before


def test_settings_at_their_defaults_are_written_as_before() -> None:
    assert "points" not in CalibrationSettings().model_dump() and "combine" not in CalibrationSettings().model_dump()
    points = CalibrationSettings(points=[{"name": "a", "budget": 0.5}]).model_dump()["points"]
    assert points == [{"name": "a", "budget": 0.5}]
    assert {p.criterion for p in CalibrationSettings(criterion="margin").all_points()} == {"margin"}
    assert set(CRITERIA) == {"max-probability", "entropy", "margin", "patience", "gate"}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"points": 3}, "points is 3. It must be a list of sections. Some keys: name, "),
        ({"points": {"name": "quick"}}, "points is {'name': 'quick'}. It must be a list of sections. Some keys: name"),
        ({"points": None}, "points is empty. It must be a list of sections. Some keys: name"),
        ({"points": ["quick"]}, "points.0 is 'quick'. It must hold keys and values. Some keys: name, "),
        ({"guarantee": 0.1}, "guarantee is 0.1. It must hold keys and values. Some keys: epsilon, "),
    ],
)
def test_what_is_no_section_is_told_what_one_is(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_section(CalibrationSettings, section, "r.yaml")
    assert str(caught.value).startswith(f"r.yaml: {said}")


def test_a_file_of_points_is_read_as_strictly_as_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "points.yaml"
    path.write_text("- {name: half, budget: 0.5}\n")
    assert load_points(path) == [{"name": "half", "budget": 0.5}]
    for text, said in (
        ("- {name: half, budget: 0.5, budget: 0.9}", r"points\.yaml: line 1 .*the key 'budget' appears twice"),
        ("name: half", "must hold a list of operating points"),
        ("[" * 100_000, "nested too deeply"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_points(path)
