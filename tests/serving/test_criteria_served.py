"""Every criterion through chains of tiers: what is served is what plain formulas say of the uncut network."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.bundle import Bundle
from common.criteria import softmax
from common.errors import Malformed
from common.types import Request, Rows
from tests.networks import CLASSES, Skip, write_skip
from tests.serving.chains import Direct, ask, inputs, make_chain, make_request, make_tier
from tests.serving.sockets import calling, served, until

WEIGHTS = ((1.2,), (0.4, 0.9), (0.2, 0.3, 0.8))
BIASES = tuple(tuple(row) for row in np.random.default_rng(7).normal(0, 0.3, (3, CLASSES)).tolist())
GATES = (
    {"bias": -1.0, "log_odds": 0.9, "entropy": -0.5, "margin": 1.0, "agreement": 0.0},
    {"bias": -1.5, "log_odds": 0.5, "entropy": 0.0, "margin": 1.0, "agreement": 1.5},
    None,
)
PLAIN: dict[str, Any] = {
    "patience": {"criterion": "patience", "thresholds": [None, 2, 1]},
    "together": {"criterion": "margin", "combine": "early", "thresholds": [0.9, 0.5, 0]},
    "all": {"criterion": "entropy", "combine": "all", "thresholds": [0.2, 0.4, 1]},
    "patience-together": {"criterion": "patience", "combine": "all", "thresholds": [None, 2, 1]},
    "fitted": {"criterion": "gate", "thresholds": [0.9, 0.7, 0], "gates": list(GATES)},
    "fitted-together": {"criterion": "gate", "combine": "early", "thresholds": [0.9, 0.8, 0], "gates": list(GATES)},
}


def write(root: Path) -> tuple[Bundle, Skip]:
    return write_skip(root, points=PLAIN, combine=list(zip(WEIGHTS, BIASES, strict=True)))


def wanted(reference: Skip, x_BD: np.ndarray, point: dict[str, Any]) -> list[tuple[int, int]]:
    """(label, exit) per row, from formulas alone."""
    probs = [softmax(z).astype(np.float64) for z in reference.logits(x_BD)]
    combine = point.get("combine", "none")
    found = []
    for b in range(len(x_BD)):
        labels: list[int] = []
        for exit in range(3):
            p = probs[exit][b]
            if combine == "all" or (combine == "early" and exit < 2):
                p = np.exp(BIASES[exit]) * np.prod([probs[j][b] ** WEIGHTS[exit][j] for j in range(exit + 1)], axis=0)
                p = p / p.sum()
            labels.append(int(p.argmax()))
            threshold = point["thresholds"][exit]
            if exit == 2 or (threshold is not None and accepts(point, exit, p, labels, threshold)):
                found.append((labels[-1], exit))
                break
    return found


def accepts(point: dict[str, Any], exit: int, p: np.ndarray, labels: list[int], threshold: float) -> bool:
    entropy = float(-(p * np.log(p)).sum() / math.log(len(p)))
    second, first = np.sort(p)[-2:]
    match point["criterion"]:
        case "patience":
            return len(labels) >= threshold and len(set(labels[-int(threshold) :])) == 1
        case "margin":
            return bool(first - second >= threshold)
        case "entropy":
            return entropy <= threshold
    gate = point["gates"][exit]
    same = len(labels) > 1 and labels[-1] == labels[-2]
    logit = gate["bias"] + gate["log_odds"] * math.log(first / max(1 - first, 1e-6))
    logit += gate["entropy"] * entropy + gate["margin"] * (first - second) + gate["agreement"] * same
    return 1 / (1 + math.exp(-logit)) >= threshold


@pytest.mark.parametrize("stops", [(4,), (1, 3, 4)])
async def test_a_gate_that_the_stage_writes(tmp_path: Path, stops: tuple[int, ...]) -> None:
    point = {"criterion": "gate", "thresholds": [0.9, 0.7, 0.0]}
    bundle, reference = write_skip(tmp_path, points={"gate": point})
    device = make_chain(bundle, stops)[0]
    batches = [inputs(1 + seed % 7, seed) for seed in range(24)]
    results = await asyncio.gather(*(ask(device, make_request(bundle, x_BD, point="gate")) for x_BD in batches))
    taken = set()
    for x_BD, answers in zip(batches, results, strict=True):
        expected = reference.decide(x_BD, "gate", (0.9, 0.7, 0.0))
        assert [(a.label, a.exit) for a in answers] == expected
        taken |= {exit for _, exit in expected}
    assert taken == {0, 1, 2}


@pytest.mark.parametrize("unary", [False, True])
async def test_every_point_over_the_wire_side_by_side(tmp_path: Path, unary: bool) -> None:
    """Rows of all operating points are in flight together, so batches must not mix what decides differently."""
    bundle, reference = write(tmp_path)
    batches = [(point, inputs(1 + seed % 9, seed)) for seed in range(12) for point in PLAIN]
    async with (
        served(make_tier(bundle, 3, 4, name="cloud")) as (_, cloud),
        calling(bundle, 1, 3, [cloud], name="edge", unary=unary) as (edge, edge_pool),
        served(edge) as (_, edge_at),
        calling(bundle, 0, 1, [edge_at], unary=unary) as (device, pool),
    ):
        await until(lambda: pool.up() and edge_pool.up())
        asked = [make_request(bundle, x_BD, point=point, want_probabilities=True) for point, x_BD in batches]
        results = await asyncio.gather(*(ask(device, request) for request in asked))
    taken: dict[str, set[int]] = {}
    for (point, x_BD), answers in zip(batches, results, strict=True):
        assert all(a.degraded is None for a in answers)
        assert [(a.label, a.exit) for a in answers] == wanted(reference, x_BD, PLAIN[point])
        assert all(a.confidence == pytest.approx(max(a.probabilities or ())) for a in answers)
        taken.setdefault(point, set()).update(a.exit for a in answers)
    assert all(exits >= {1, 2} for exits in taken.values())


async def test_one_row_is_answered_as_in_a_batch(tmp_path: Path) -> None:
    bundle, _ = write(tmp_path)
    device = make_chain(bundle, (1, 3, 4))[0]
    x_BD = inputs(40)
    for point in PLAIN:
        together = await ask(device, make_request(bundle, x_BD, point=point))
        alone = [(await ask(device, make_request(bundle, x_BD[b : b + 1], point=point)))[0] for b in range(40)]
        assert [(a.label, a.exit) for a in alone] == [(a.label, a.exit) for a in together]
        assert np.allclose([a.confidence for a in alone], [a.confidence for a in together], atol=1e-5)


async def test_the_input_instead_carries_no_state(tmp_path: Path) -> None:
    """Upstream starts again at stage 0, and what the exits passed said is computed there again."""
    bundle, reference = write(tmp_path)
    bundle.manifest = replace(bundle.manifest, input_cuts=frozenset({0}))
    device = make_tier(bundle, 0, 1, upstream=Direct(make_tier(bundle, 0, 4, name="edge")))
    x_BD = inputs(60)
    for point in PLAIN:
        answers = await ask(device, make_request(bundle, x_BD, point=point))
        assert [(a.label, a.exit) for a in answers] == wanted(reference, x_BD, PLAIN[point])


def middle(bundle: Bundle, point: str, **state: np.ndarray) -> Request:
    """A request that starts behind the first exit."""
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 1, (3, 6)).astype(np.float32) for name in ("h0", "s")}
    named = {name.replace("_", ":", 1): value for name, value in state.items()}
    request = make_request(bundle, inputs(3), point=point)
    return replace(request, start_stage=1, rows=Rows(ids=(0, 1, 2), tensors=tensors, state=named))


LABELS, AGREED = np.zeros(3, np.int32), np.ones(3, np.int32)


@pytest.mark.parametrize(
    ("point", "state", "sentence"),
    [
        ("patience", {}, "State 'exits:label' is missing. Operating points of criterion patience need it from"),
        ("patience", {"exits_label": LABELS}, "State 'exits:agreed' is missing"),
        ("together", {}, "State 'exits:log_probs' is missing"),
        ("fitted", {}, "State 'exits:label' is missing"),
        ("patience", {"exits_label": LABELS, "exits_agreed": AGREED.astype(np.int64)}, "is int64"),
        ("patience", {"exits_label": LABELS + CLASSES, "exits_agreed": AGREED}, "between 0 and 4"),
        ("patience", {"exits_label": LABELS, "exits_agreed": AGREED + 1}, "between 1 and 1"),
        ("all", {"exits_log_probs": np.zeros((3, CLASSES), np.float32)}, r"It must be float32 \[3, 1, 5\]"),
        ("all", {"exits_log_probs": np.full((3, 1, CLASSES), np.nan, np.float32)}, "no exit could have said"),
    ],
)
async def test_state_that_does_not_fit_is_refused(
    tmp_path: Path, point: str, state: dict[str, np.ndarray], sentence: str
) -> None:
    bundle, _ = write(tmp_path)
    tier = make_tier(bundle, 1, 4)
    with pytest.raises(Malformed, match=sentence):
        await ask(tier, middle(bundle, point, **state))
    assert tier.in_flight == 0


async def test_state_that_nobody_needs_is_left_behind(tmp_path: Path) -> None:
    bundle, _ = write(tmp_path)
    odd = {"exits_label": np.zeros((3, 7)), "exits_agreed": AGREED}
    tier = make_tier(bundle, 1, 4)
    for point, state in (("default", odd), ("patience", odd | {"exits_label": LABELS})):
        both = await asyncio.gather(
            ask(tier, middle(bundle, point, **state)), ask(tier, middle(bundle, point, **state))
        )
        assert [len(answers) for answers in both] == [3, 3]
