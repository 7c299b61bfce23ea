import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from calibration.calibrate import calibrate
from calibration.certificate import split_sha256
from calibration.datasets import divide, load_train
from calibration.evaluate import evaluate
from calibration.guarantee import Split, answered, guaranteed_point, reference
from calibration.later import add_later
from calibration.risks import risk_named
from calibration.served import Said, Served
from calibration.settings import DataSettings, GuaranteeSettings
from calibration.thresholds import ExitScores, exit_flops, exits_taken
from common.bundle import Bundle, write_manifest
from common.criteria import CRITERIA
from common.errors import BundleError, ConfigError
from common.manifest import Manifest
from common.rule import Rule
from common.serving.configuration import differences, without_guarantee
from tests.synthetic import SIDE, recipe, write_idx, write_tiny


def wanted(epsilon: float = 0.1, **more: Any) -> GuaranteeSettings:
    return GuaranteeSettings(epsilon=epsilon, **more)


def point_of(root: Path, name: str = "guaranteed") -> dict[str, Any]:
    points: dict[str, Any] = json.loads((root / "manifest.json").read_text())["operating_points"]
    return dict(points[name])


def test_calibrate_adds_a_point_with_a_certificate(tiny: Path, data: Path) -> None:
    said: list[str] = []
    calibrate(tiny, data, guarantee=wanted(0.1), report=said.append)
    bundle, point = Bundle(tiny), point_of(tiny)
    paper = point["guarantee"]
    assert set(bundle.manifest.operating_points) == {"default", "full", "guaranteed"}
    assert paper["certified"] and paper["statement"] in said[-1] and "at most 10 % of the answers differ" in said[-1]
    assert (paper["epsilon"], paper["delta"], paper["n"], paper["tune_n"]) == (0.1, 0.1, 400, 300)
    assert paper["configuration"]["stages"] == [stage.sha256 for stage in bundle.manifest.stages]
    assert paper["configuration"]["thresholds"] == point["thresholds"]
    assert paper["ladder"][paper["rung"]]["thresholds"] == point["thresholds"]
    assert paper["limit"] <= 0.1 < paper["ladder"][paper["rung"] + 1]["limit"]
    assert point["measured"]["exit_rates"][0] > 0.1 and point["measured"]["n"] == 400
    assert bundle.manifest.provenance["calibration"]["guarantee"] == wanted(0.1).model_dump()
    for entry in (paper, *paper["ladder"]):
        assert entry["limit"] >= entry["mean_loss"]


@pytest.mark.parametrize("risk", ["disagreement", "accuracy-gap"])
def test_the_certificate_says_what_the_rows_say(tiny: Path, data: Path, risk: str) -> None:
    """Run again from the bundle on disk: mean loss, exit rates and the hash of the rows are what was written."""
    calibrate(tiny, data, guarantee=wanted(0.1, risk=risk))
    bundle, point = Bundle(tiny), point_of(tiny)
    settings = DataSettings(**recipe()["data"])
    rows = divide(load_train(settings, data), settings).certify
    served = Served(bundle)
    said = served.says(rows)
    scores = ExitScores.of(said, Rule.of(bundle.manifest, bundle.manifest.operating_points["guaranteed"]))
    answers = answered(scores, reference(served, rows), rows)
    thresholds = bundle.manifest.operating_points["guaranteed"].thresholds
    taken = exits_taken(CRITERIA["max-probability"], scores.scores_EN, thresholds)
    losses = risk_named(risk).losses(answers)[taken, np.arange(len(taken))]
    assert point["guarantee"]["mean_loss"] == pytest.approx(losses.mean(), abs=1e-6)
    assert point["measured"]["exit_rates"] == pytest.approx((np.bincount(taken, minlength=2) / 400).tolist(), abs=1e-6)
    assert point["measured"]["mean_flops"] == pytest.approx(exit_flops(bundle.manifest)[taken].mean(), abs=0.1)
    assert point["guarantee"]["certify_sha256"] == split_sha256(rows)


def test_rows_that_were_tested_before_are_told(tiny: Path, data: Path) -> None:
    """Calibrating with several epsilons and keeping the best breaks what each of them promises."""
    said: list[str] = []
    for epsilon, told in ((0.1, False), (0.1, False), (0.05, True)):
        said.clear()
        calibrate(tiny, data, guarantee=wanted(epsilon), report=said.append)
        assert any("the same rows were tested before, for epsilon 0.1 (guaranteed)." in line for line in said) == told


def test_promises_whose_points_are_gone_are_told(tiny: Path, data: Path) -> None:
    said: list[str] = []

    def again(**how: Any) -> str:
        said.clear()
        calibrate(tiny, data, report=said.append, **how)
        return "\n".join(line for line in said if line.startswith("note: "))

    half = [{"name": "half", "budget": 0.9}]
    assert again(guarantee=wanted(0.3, name="e3")) == ""
    add_later(tiny, "e3", wanted(0.35, name="loose"))
    notes = again(guarantee=wanted(0.2, name="e2"))
    assert "tested before, for epsilon 0.3 (e3)." in notes and "note: e3 and loose are gone: " in notes
    assert "note: e2 is gone: " in again(points=half, guarantee=wanted(0.3, name="e3"))
    notes = again(points=half, guarantee=wanted(0.1))
    assert "for epsilon 0.2 (e2), 0.3 (e3)." in notes and "note: e3 is gone: " in notes
    assert [each["name"] for each in Bundle(tiny).manifest.provenance["tested_before"]] == ["e2", "e3"]
    digest = Bundle(tiny).digest
    assert again(points=half, guarantee=wanted(0.1)) == "" and Bundle(tiny).digest == digest
    assert "0.1 (guaranteed)." in again(points=half, guarantee=wanted(0.1), criterion="margin"), "by another criterion"


def test_the_recipe_may_ask_for_it(tmp_path: Path, data: Path) -> None:
    section = {"epsilon": 0.2, "delta": 0.05, "risk": "accuracy-gap", "name": "safe"}
    root = write_tiny(tmp_path / "tiny", calibration={"guarantee": section})
    calibrate(root, data)
    assert point_of(root, "safe")["guarantee"]["delta"] == 0.05
    calibrate(root, data, guarantee=wanted(0.1))
    assert "safe" not in Bundle(root).manifest.operating_points and point_of(root)["guarantee"]["epsilon"] == 0.1


def test_an_epsilon_that_cannot_be_met_sends_everything_to_the_last_exit(tiny: Path, data: Path) -> None:
    said: list[str] = []
    calibrate(tiny, data, guarantee=wanted(0.001), report=said.append)
    point = point_of(tiny)
    assert point["thresholds"] == [None, 0.0] and point["measured"]["exit_rates"] == [0.0, 1.0]
    assert point["guarantee"]["certified"] is False and point["guarantee"]["rung"] is None
    assert "Nothing is promised: epsilon 0.001" in said[-1] and "they could show 0.00574" in said[-1]


def test_the_ladder_depends_on_the_tune_split_alone(tiny: Path, data: Path, tmp_path: Path) -> None:
    """Other certify rows: the same rungs, other limits."""
    calibrate(tiny, data, guarantee=wanted())
    before = point_of(tiny)["guarantee"]
    settings = DataSettings(**recipe()["data"])
    official = load_train(settings, data)
    order = np.random.Generator(np.random.PCG64(settings.seed)).permutation(len(official))
    images, labels = official.inputs["image"][:, 0].copy(), official.labels_N.astype(np.uint8)
    images[order[400:800]] = np.random.default_rng(0).integers(0, 256, (400, SIDE, SIDE))
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", labels)
    calibrate(tiny, tmp_path, guarantee=wanted())
    after = point_of(tiny)["guarantee"]
    assert [rung["thresholds"] for rung in after["ladder"]] == [rung["thresholds"] for rung in before["ladder"]]
    assert after["tune_sha256"] == before["tune_sha256"] and after["certify_sha256"] != before["certify_sha256"]
    assert after["ladder"][20]["limit"] > before["ladder"][20]["limit"]


def test_evaluate_shows_what_it_costs_on_the_test_split(tiny: Path, data: Path) -> None:
    calibrate(tiny, data)
    assert "guarantees" not in evaluate(tiny, data, latency_rows=0)
    calibrate(tiny, data, guarantee=wanted(0.1, risk="accuracy-gap"))
    result = evaluate(tiny, data, latency_rows=0, write=True)
    drop = result["operating_points"]["guaranteed"]["drop"]
    entry = result["guarantees"]["guaranteed"]
    assert (entry["risk"], entry["epsilon"], entry["delta"]) == ("accuracy-gap", 0.1, 0.1)
    assert entry["mean_loss"] == pytest.approx(
        drop, abs=0.02
    )  # the uncut network differs from the last exit by a codec
    assert "## Guarantees" in (tiny / "README.md").read_text()
    calibrate(tiny, data, guarantee=wanted(0.001))
    assert "guarantees" not in evaluate(tiny, data, latency_rows=0)


def test_another_point_later_without_data(tiny: Path, data: Path) -> None:
    calibrate(tiny, data, guarantee=wanted(0.05))
    source = point_of(tiny)
    digest = add_later(tiny, "guaranteed", wanted(0.3, name="loose"))
    assert Bundle(tiny).digest == digest
    loose = point_of(tiny, "loose")
    chosen = source["guarantee"]["ladder"][loose["guarantee"]["rung"]]
    assert loose["thresholds"] == chosen["thresholds"] == loose["guarantee"]["configuration"]["thresholds"]
    assert chosen["limit_all"] <= 0.3 and loose["measured"]["mean_flops"] < source["measured"]["mean_flops"]
    assert all(
        rung["limit_all"] > 0.3 or rung["mean_flops"] >= chosen["mean_flops"] for rung in source["guarantee"]["ladder"]
    )
    assert point_of(tiny) == source and _differences(Bundle(tiny).manifest, "loose") == ()
    add_later(tiny, "guaranteed", wanted(0.25, name="loose"))
    assert point_of(tiny, "loose")["guarantee"]["epsilon"] == 0.25


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("guaranteed", {"epsilon": 0.001, "name": "x"}, "No rung of operating point 'guaranteed' shows epsilon 0.001"),
        ("default", {"epsilon": 0.3, "name": "x"}, "'default' carries no certificate with a ladder"),
        ("nothing", {"epsilon": 0.3, "name": "x"}, "no operating point 'nothing'. It has default, full, guaranteed"),
        ("guaranteed", {"epsilon": 0.3}, "'guaranteed' is there already"),
        ("guaranteed", {"epsilon": 0.3, "name": "full"}, "'full' is there already"),
        ("guaranteed", {"epsilon": 0.3, "name": "default"}, "'default' is there already"),
        ("guaranteed", {"epsilon": 0.3, "name": "x", "delta": 0.01}, "has delta 0.1, not 0.01"),
        (
            "guaranteed",
            {"epsilon": 0.3, "name": "x", "risk": "accuracy-gap"},
            "has risk disagreement, not accuracy-gap",
        ),
    ],
)
def test_what_a_certificate_does_not_show_is_refused(
    tiny: Path, data: Path, source: str, options: dict[str, Any], said: str
) -> None:
    calibrate(tiny, data, guarantee=wanted(0.1))
    before = (tiny / "manifest.json").read_bytes()
    with pytest.raises(ConfigError) as caught:
        add_later(tiny, source, GuaranteeSettings(**options))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert (tiny / "manifest.json").read_bytes() == before


def test_a_point_that_cannot_be_made_again_is_not_replaced(tiny: Path, data: Path) -> None:
    calibrate(tiny, data, guarantee=wanted(0.1))
    add_later(tiny, "guaranteed", wanted(0.3, name="loose"))
    document = json.loads((tiny / "manifest.json").read_text())
    points = document["operating_points"]
    points["other"] = points.pop("guaranteed")
    write_manifest(tiny, document)
    with pytest.raises(ConfigError, match="'loose' is there already"):
        add_later(tiny, "other", wanted(0.25, name="loose"))


@pytest.mark.parametrize(
    "harm",
    [
        lambda paper: paper["ladder"][0].pop("limit_all"),
        lambda paper: paper["ladder"][0].update(limit_all=None),
        lambda paper: paper["ladder"].append("rung"),
        lambda paper: paper.pop("n"),
        lambda paper: paper.pop("delta"),
        lambda paper: paper.update(configuration=3),
    ],
)
def test_a_damaged_certificate_is_said_to_be_one(tiny: Path, data: Path, harm: Callable[[Any], None]) -> None:
    calibrate(tiny, data, guarantee=wanted(0.1))
    document = json.loads((tiny / "manifest.json").read_text())
    harm(document["operating_points"]["guaranteed"]["guarantee"])
    write_manifest(tiny, document)
    before = sorted((path.name, path.read_bytes()) for path in tiny.iterdir())
    with pytest.raises(ConfigError, match=r"certificate of operating point 'guaranteed' in .* is damaged"):
        add_later(tiny, "guaranteed", wanted(0.3, name="loose"))
    assert sorted((path.name, path.read_bytes()) for path in tiny.iterdir()) == before


def _differences(manifest: Manifest, name: str = "guaranteed") -> tuple[str, ...]:
    system = SimpleNamespace(tiers=[SimpleNamespace(stop=1), SimpleNamespace(stop=2)])
    return differences(system, manifest, {}, name)  # type: ignore[arg-type]


def test_a_tier_says_at_start_when_the_certificate_is_of_another_configuration(tiny: Path, data: Path) -> None:
    calibrate(tiny, data, guarantee=wanted(0.1))
    manifest = Bundle(tiny).manifest
    assert _differences(manifest) == () and _differences(manifest, "default") == ()
    first, *others = manifest.stages
    other = replace(manifest, stages=(replace(first, sha256="0" * 64), *others))
    assert _differences(other) == ("its certificate was issued for other stages",)
    other = replace(manifest, exits=(replace(manifest.exits[0], temperature=9.0), *manifest.exits[1:]))
    assert _differences(other) == ("its certificate was issued for other temperatures",)
    other = replace(manifest, input_cuts=frozenset({0}))
    assert "its certificate was issued for other input_cuts" in _differences(other)
    other = replace(manifest, cuts=((replace(manifest.cuts[0][0], compression="none"),),))
    assert _differences(other) == ("its certificate was issued for other cuts",)
    point = manifest.operating_points["guaranteed"]
    looser = {**manifest.operating_points, "guaranteed": replace(point, thresholds=(0.0, 0.0))}
    assert _differences(replace(manifest, operating_points=looser)) == (
        "its certificate was issued for other thresholds",
    )
    foreign = {**manifest.operating_points, "guaranteed": replace(point, guarantee={"by": "hand"})}
    assert _differences(replace(manifest, operating_points=foreign)) == ("its certificate names no configuration",)


def test_a_tier_speaks_of_the_configured_point_and_of_every_certified_one(tiny: Path, data: Path) -> None:
    calibrate(tiny, data, guarantee=wanted(0.1))
    manifest = Bundle(tiny).manifest
    tiers = [SimpleNamespace(stop=2)]
    for configured, names in (("default", ["default", "guaranteed"]), ("full", ["full", "guaranteed"])):
        system = SimpleNamespace(tiers=tiers, operating_point=configured)
        said = without_guarantee(system, manifest, {})  # type: ignore[arg-type]
        assert said == [(name, "coded cuts are [] instead of [0]") for name in names]


def test_a_tier_says_at_start_that_nothing_was_certified(tiny: Path, data: Path) -> None:
    said: list[str] = []
    calibrate(tiny, data, guarantee=wanted(0.001), report=said.append)
    assert _differences(Bundle(tiny).manifest) == ("nothing could be certified for it",)
    point = point_of(tiny)
    assert point["thresholds"] == [None, 0.0] and point["guarantee"]["certified"] is False
    (line,) = [line for line in said if line.startswith("guaranteed: ")]
    assert line.startswith(
        "guaranteed: Nothing is promised: epsilon 0.001 could not be shown with delta 0.1 on 400 rows."
    )
    assert line.endswith("Every row goes to the last exit.")
    evaluate(tiny, data, latency_rows=0, write=True)
    card = (tiny / "README.md").read_text()
    assert "## Asked for and not guaranteed" in card and f"- `guaranteed`: {line.partition(' ')[2]}" in card
    assert "No operating point carries a certificate." in card


def test_mistakes_are_one_sentence_and_change_nothing(tiny: Path, data: Path) -> None:
    before = (tiny / "manifest.json").read_bytes()
    with pytest.raises(ConfigError, match="'full' is every row at the last exit"):
        calibrate(tiny, data, guarantee=wanted(name="full"))
    assert (tiny / "manifest.json").read_bytes() == before
    for bad in ({"epsilon": 0.0}, {"epsilon": math.nan}, {"epsilon": 0.1, "delta": 1.0}, {"epsilon": 0.1, "risk": "x"}):
        document = json.loads(before)
        document["provenance"]["recipe"]["calibration"]["guarantee"] = bad
        (tiny / "manifest.json").write_text(json.dumps(document).replace("NaN", '"nan"'))
        with pytest.raises((ConfigError, BundleError), match=r"provenance.recipe.calibration: guarantee\.\w+ is"):
            calibrate(tiny, data)


def test_an_empty_certify_split_is_refused(tiny: Path, data: Path) -> None:
    served = Served(Bundle(tiny))
    settings = DataSettings(**recipe()["data"])
    rows = divide(load_train(settings, data), settings).tune
    full = Split(examples=rows, said=served.says(rows))
    empty = Split(examples=rows.take(np.zeros(0, int)), said=Said(logits=(), gates=()))
    for tune, held_out, name in ((full, empty, "certify"), (empty, full, "tune")):
        with pytest.raises(ConfigError, match=f"The {name} split holds no rows"):
            guaranteed_point(served, Rule(CRITERIA["margin"], served.manifest.exits, 10), "g", wanted(), tune, held_out)
