import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from common.bundle import Bundle
from common.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Malformed,
    Overloaded,
    RequestError,
    TooLarge,
    Unavailable,
    Unprocessable,
)
from common.limits import Limits
from common.serving.tier import Tier
from common.serving.upstream import Deliver
from common.types import Answer, Degraded, Purpose, Request
from tests.networks import Skip, write_skip
from tests.serving.chains import Direct, Scripted, ask, inputs, make_chain, make_request, make_tier

THRESHOLDS = {"default": ("max-probability", (0.9, 0.8, 0.0)), "entropy": ("entropy", (0.2, 0.3, 1.0))}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Skip]:
    return write_skip(tmp_path_factory.mktemp("skip"))


@pytest.fixture
async def tiers() -> AsyncIterator[Callable[..., list[Tier]]]:
    made: list[Tier] = []

    def make(*args: object, **kwargs: object) -> list[Tier]:
        made.extend(make_chain(*args, **kwargs))  # type: ignore[arg-type]
        return made

    yield make
    for tier in made:
        await tier.close()


@pytest.mark.parametrize("stops", [[4], [1, 4], [3, 4], [1, 3, 4], [0, 1, 4], [1, 1, 3, 4], [1, 2, 3, 4]])
@pytest.mark.parametrize("point", ["default", "entropy"])
async def test_any_cut_gives_the_answers_of_the_whole(
    network: tuple[Bundle, Skip], tiers: Callable[..., list[Tier]], stops: list[int], point: str
) -> None:
    bundle, reference = network
    chain = tiers(bundle, stops)
    x_BD = inputs(64)
    expected = reference.decide(x_BD, *THRESHOLDS[point])
    assert {exit for _, exit in expected} == {0, 1, 2}
    answers = await ask(chain[0], make_request(bundle, x_BD, point=point))
    assert [(a.label, a.exit) for a in answers] == expected
    exit_stage = (0, 2, 3)
    for a in answers:
        by = next(k for k, stop in enumerate(stops) if exit_stage[a.exit] < stop)
        assert (a.tier, a.degraded) == (f"tier{by}", None)
        assert [hop.tier for hop in a.hops] == [f"tier{k}" for k in range(by + 1)]


async def test_rows_of_many_callers_join_and_part_again(
    network: tuple[Bundle, Skip], tiers: Callable[..., list[Tier]]
) -> None:
    bundle, reference = network
    chain = tiers(bundle, [1, 3, 4])
    rng = np.random.default_rng(1)
    batches = [inputs(int(rng.integers(1, 9)), seed) for seed in range(40)]
    points = [("default", "entropy")[seed % 2] for seed in range(40)]
    requests = [
        make_request(bundle, x_BD, point=p, ids=list(rng.permutation(1000)[: len(x_BD)]))
        for x_BD, p in zip(batches, points, strict=True)
    ]
    results = await asyncio.gather(*(ask(chain[0], request) for request in requests))
    for x_BD, point, answers in zip(batches, points, results, strict=True):
        assert [(a.label, a.exit) for a in answers] == reference.decide(x_BD, *THRESHOLDS[point])
    runs = chain[0].metrics.registry.get_sample_value("offramp_batch_rows_count", {"tier": "tier0", "stage": "0"})
    assert runs is not None and runs < 40, "waiting rows should have shared runs"


async def test_full_sends_every_row_to_the_last_exit(
    network: tuple[Bundle, Skip], tiers: Callable[..., list[Tier]]
) -> None:
    bundle, _ = network
    answers = await ask(tiers(bundle, [1, 3, 4])[0], make_request(bundle, inputs(16), point="full"))
    assert {(a.exit, a.tier) for a in answers} == {(2, "tier2")}


async def test_thresholds_of_the_request_override(
    network: tuple[Bundle, Skip], tiers: Callable[..., list[Tier]]
) -> None:
    bundle, _ = network
    chain = tiers(bundle, [1, 4])
    answers = await ask(chain[0], make_request(bundle, inputs(16), thresholds=(float("nan"), 0.0, 0.0)))
    assert {a.exit for a in answers} == {1}


async def test_probabilities_when_asked(network: tuple[Bundle, Skip], tiers: Callable[..., list[Tier]]) -> None:
    bundle, _ = network
    for want in (True, False):
        for a in await ask(tiers(bundle, [1, 4])[0], make_request(bundle, inputs(16), want_probabilities=want)):
            if want:
                assert a.probabilities is not None
                assert a.probabilities[a.label] == pytest.approx(a.confidence) == max(a.probabilities)
            else:
                assert a.probabilities is None


async def test_forward_false_stays_here(network: tuple[Bundle, Skip]) -> None:
    bundle, reference = network
    upstream = Scripted(lambda request, deliver: None)
    tier = make_tier(bundle, 0, 1, upstream=upstream)
    x_BD = inputs(16)
    answers = await ask(tier, make_request(bundle, x_BD, forward=False))
    assert [a.label for a in answers] == reference.logits(x_BD)[0].argmax(1).tolist()
    assert {(a.exit, a.degraded) for a in answers} == {(0, None)}
    assert upstream.seen == []
    await tier.close()


def refuse_with(error: RequestError) -> Callable[[Request, Deliver], RequestError]:
    return lambda request, deliver: error


def answer_with(**odd: object) -> Callable[[Request, Deliver], None]:
    """An upstream whose answers do not fit the bundle."""
    good = {"label": 1, "confidence": 0.5, "exit": 2, "tier": "cloud"}
    return lambda request, deliver: deliver([Answer(row=row, **good | odd) for row in request.rows.ids])  # type: ignore[arg-type]


async def hang(*_: object) -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (refuse_with(Unavailable("gone")), Degraded.UPSTREAM_UNAVAILABLE),
        (refuse_with(Overloaded("full")), Degraded.UPSTREAM_OVERLOADED),
        (refuse_with(FailedPrecondition("other bundle")), Degraded.UPSTREAM_REJECTED),
        (refuse_with(Malformed("strange")), Degraded.UPSTREAM_REJECTED),
        (refuse_with(RequestError("odd")), Degraded.UPSTREAM_REJECTED),
        (refuse_with(DeadlineExceeded("late")), Degraded.DEADLINE),
        (hang, Degraded.DEADLINE),
        (lambda request, deliver: None, Degraded.UPSTREAM_REJECTED),
        (lambda request, deliver: 1 / 0, Degraded.UPSTREAM_REJECTED),
        (answer_with(label=5), Degraded.UPSTREAM_REJECTED),
        (answer_with(exit=3), Degraded.UPSTREAM_REJECTED),
        (answer_with(confidence=float("nan")), Degraded.UPSTREAM_REJECTED),
        (answer_with(tier=""), Degraded.UPSTREAM_REJECTED),
        (answer_with(tier="a b" * 100), Degraded.UPSTREAM_REJECTED),
        (answer_with(probabilities=(0.5, 0.5)), Degraded.UPSTREAM_REJECTED),
    ],
)
async def test_every_failure_of_upstream_is_answered_here(
    network: tuple[Bundle, Skip], act: Callable[..., object], reason: Degraded
) -> None:
    bundle, reference = network
    tier = make_tier(bundle, 0, 3, upstream=Scripted(act), timeout_s=0.05)
    x_BD = inputs(32)
    answers = await ask(tier, make_request(bundle, x_BD))
    expected = reference.decide(x_BD, *THRESHOLDS["default"])
    for a, (label, exit) in zip(answers, expected, strict=True):
        if exit < 2:
            assert (a.label, a.exit, a.degraded) == (label, exit, None)
        else:
            assert (a.exit, a.tier, a.degraded) == (1, "device", reason)
    counted = tier.metrics.registry.get_sample_value(
        "offramp_answers_total", {"tier": "device", "by": "device", "exit": "1", "degraded": reason}
    )
    assert counted == sum(exit == 2 for _, exit in expected) > 0
    await tier.close()


async def test_what_upstream_answered_before_it_failed_is_kept(network: tuple[Bundle, Skip]) -> None:
    bundle, _ = network

    def half(request: Request, deliver: Deliver) -> RequestError:
        deliver([Answer(row=row, label=3, confidence=0.5, exit=2, tier="cloud") for row in request.rows.ids[::2]])
        return Unavailable("died")

    upstream = Scripted(half)
    tier = make_tier(bundle, 0, 1, upstream=upstream)
    answers = {a.row: a for a in await ask(tier, make_request(bundle, inputs(64)))}
    asked = upstream.seen[0].rows.ids
    assert {answers[row].tier for row in asked[::2]} == {"cloud"}
    assert {(answers[row].tier, answers[row].degraded) for row in asked[1::2]} == {
        ("device", Degraded.UPSTREAM_UNAVAILABLE)
    }
    await tier.close()


async def test_second_and_foreign_answers_are_dropped(network: tuple[Bundle, Skip]) -> None:
    bundle, _ = network

    def twice(request: Request, deliver: Deliver) -> None:
        first = [Answer(row=row, label=1, confidence=0.5, exit=2, tier="cloud") for row in request.rows.ids]
        deliver(first[:1])
        deliver([*first, Answer(row=10_000, label=4, confidence=1.0, exit=2, tier="cloud")])

    tier = make_tier(bundle, 0, 1, upstream=Scripted(twice))
    answers = await ask(tier, make_request(bundle, inputs(32)))
    assert {a.label for a in answers if a.tier == "cloud"} == {1}
    await tier.close()


async def test_an_upper_tiers_reason_passes_down(network: tuple[Bundle, Skip]) -> None:
    bundle, _ = network
    edge = make_tier(bundle, 1, 3, name="edge", upstream=Scripted(refuse_with(Overloaded("full"))))
    device = make_tier(bundle, 0, 1, upstream=Direct(edge))
    answers = await ask(device, make_request(bundle, inputs(64), point="full"))
    assert {(a.tier, a.exit, a.degraded) for a in answers} == {("edge", 1, Degraded.UPSTREAM_OVERLOADED)}
    await device.close()
    await edge.close()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Unavailable("gone"), Degraded.UPSTREAM_UNAVAILABLE), (DeadlineExceeded("x"), Degraded.DEADLINE)],
)
async def test_a_relay_that_cannot_forward_refuses(
    network: tuple[Bundle, Skip], error: RequestError, reason: Degraded
) -> None:
    bundle, _ = network
    relay = make_tier(bundle, 0, 0, name="relay", upstream=Scripted(refuse_with(error)))
    with pytest.raises(type(error)):
        await ask(relay, make_request(bundle, inputs(4)))
    middle = make_tier(bundle, 1, 1, name="middle", upstream=Scripted(refuse_with(error)))
    device = make_tier(bundle, 0, 1, upstream=Direct(middle))
    answers = await ask(device, make_request(bundle, inputs(4), point="full"))
    assert {(a.tier, a.degraded) for a in answers} == {("device", reason)}
    for tier in (relay, middle, device):
        await tier.close()


async def test_the_time_left_shrinks_by_the_reserve_at_every_hop(network: tuple[Bundle, Skip]) -> None:
    bundle, _ = network
    upstream = Scripted(refuse_with(Unavailable("x")))
    tier = make_tier(bundle, 0, 1, upstream=upstream, timeout_s=0.2)
    await ask(tier, make_request(bundle, inputs(2), point="full", timeout_s=10.0))
    await ask(tier, make_request(bundle, inputs(2), point="full", timeout_s=0.1))
    lefts = [request.deadline.left() for request in upstream.seen]
    assert lefts[0] <= 0.195 and lefts[1] <= 0.095
    await tier.close()


async def test_no_time_left_does_not_ask(network: tuple[Bundle, Skip]) -> None:
    bundle, _ = network
    upstream = Scripted(lambda request, deliver: None)
    tier = make_tier(bundle, 0, 1, upstream=upstream, timeout_s=0.004)
    answers = await ask(tier, make_request(bundle, inputs(2), point="full"))
    assert {a.degraded for a in answers} == {Degraded.DEADLINE} and upstream.seen == []
    with pytest.raises(DeadlineExceeded):
        await ask(tier, make_request(bundle, inputs(2), timeout_s=-1.0))
    await tier.close()


async def test_requests_that_this_tier_cannot_serve(network: tuple[Bundle, Skip], tmp_path: Path) -> None:
    bundle, _ = network
    tier = make_tier(bundle, 0, 1, upstream=Scripted(lambda r, d: None))
    x_BD = inputs(1)
    cases = [
        (make_request(write_skip(tmp_path, seed=5)[0], x_BD), FailedPrecondition, "This tier serves bundle"),
        (make_request(bundle, x_BD, start_stage=4), Malformed, "last stage is 3"),
        (make_request(bundle, x_BD, point="luck"), Unprocessable, "one of default, entropy, full"),
        (make_request(bundle, x_BD, thresholds=(0.1,)), Malformed, "one for each of the 3 exits"),
    ]
    for request, error, sentence in cases:
        with pytest.raises(error, match=sentence):
            await ask(tier, request)
    await tier.close()
    upper = make_tier(bundle, 1, 4, name="cloud")
    del upper.runners[2]  # type: ignore[attr-defined]
    with pytest.raises(FailedPrecondition, match="does not hold stage 2"):
        await ask(upper, make_request(bundle, x_BD))
    await upper.close()


async def test_an_upper_tier_runs_from_any_stage_that_it_holds(network: tuple[Bundle, Skip]) -> None:
    bundle, reference = network
    cloud = make_tier(bundle, 3, 4, name="cloud")
    x_BD = inputs(16)
    answers = await ask(cloud, make_request(bundle, x_BD))
    assert [(a.label, a.exit) for a in answers] == reference.decide(x_BD, *THRESHOLDS["default"])
    await cloud.close()


async def test_the_queue_is_bounded_and_other_purposes_are_shed_first(network: tuple[Bundle, Skip]) -> None:
    bundle, _ = network
    tier = make_tier(bundle, 0, 4, limits=Limits(queue_rows=8))
    with pytest.raises(TooLarge, match=r"has 9 rows\. At most 8 "):  # it could never pass: not "retry later"
        await ask(tier, make_request(bundle, inputs(9)))
    with pytest.raises(Overloaded):
        await ask(tier, make_request(bundle, inputs(5), purpose=Purpose.PROBE))
    await ask(tier, make_request(bundle, inputs(4), purpose=Purpose.PROBE))
    await ask(tier, make_request(bundle, inputs(8)))
    value = tier.metrics.registry.get_sample_value
    assert value("offramp_audit_rows_total", {"tier": "device"}) == 4
    families = {family.name: family for family in tier.metrics.registry.collect()}
    assert sum(s.value for s in families["offramp_answers"].samples if s.name.endswith("_total")) == 8
    await tier.close()


@pytest.mark.parametrize("rows", [64, 65, 300])
async def test_a_large_request_is_run_in_parts(
    network: tuple[Bundle, Skip], tiers: Callable[..., list[Tier]], rows: int
) -> None:
    bundle, reference = network
    chain = tiers(bundle, [1, 3, 4])
    x_BD = inputs(rows)
    answers = await ask(chain[0], make_request(bundle, x_BD))
    assert [(a.label, a.exit) for a in answers] == reference.decide(x_BD, *THRESHOLDS["default"])
    runs = chain[0].metrics.registry.get_sample_value("offramp_batch_rows_count", {"tier": "tier0", "stage": "0"})
    assert runs == -(-rows // 64)


async def test_a_caller_that_leaves_withdraws_its_rows(network: tuple[Bundle, Skip]) -> None:
    bundle, _ = network
    cancelled = asyncio.Event()

    async def until_cancelled(*_: object) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    tier = make_tier(bundle, 0, 1, upstream=Scripted(until_cancelled))
    task = asyncio.create_task(ask(tier, make_request(bundle, inputs(4), point="full")))
    while not tier.forwarder.upstream.seen:  # type: ignore[union-attr]
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(cancelled.wait(), 5)
    assert tier.in_flight == 0
    await tier.close()


async def test_a_stage_that_fails_does_not_stop_the_tier(network: tuple[Bundle, Skip]) -> None:
    bundle, _ = network
    tier = make_tier(bundle, 0, 4)
    good = tier.runners[2]

    class Broken:
        runtime, precision = "broken", "float32"

        def run(self, tensors: object) -> dict[str, np.ndarray]:
            raise RuntimeError("no memory")

    tier.runners[2] = Broken()  # type: ignore[index]
    with pytest.raises(Unavailable, match="Stage 2 failed"):
        await ask(tier, make_request(bundle, inputs(8), point="full"))
    tier.runners[2] = good  # type: ignore[index]
    assert len(await ask(tier, make_request(bundle, inputs(8), point="full"))) == 8
    await tier.close()


async def test_equal_ids_of_different_callers_stay_apart(network: tuple[Bundle, Skip]) -> None:
    bundle, reference = network
    cloud = make_tier(bundle, 1, 4, name="cloud")
    upstream = Scripted(lambda request, deliver: cloud.answer(request, deliver))
    device = make_tier(bundle, 0, 1, upstream=upstream)
    from dataclasses import replace

    batches = [inputs(4, seed) for seed in range(5)]
    requests = [replace(make_request(bundle, x, point="full"), request_id="same") for x in batches]
    results = await asyncio.gather(*(ask(device, request) for request in requests))
    for x_BD, answers in zip(batches, results, strict=True):
        assert [a.label for a in answers] == reference.logits(x_BD)[2].argmax(1).tolist()
    assert len({request.request_id for request in upstream.seen}) == 5
    await device.close()
    await cloud.close()


async def test_numbers_that_overflow_are_no_answer(network: tuple[Bundle, Skip]) -> None:
    """Every number is finite, and what the network makes of them is not: no class is the likeliest."""
    bundle, _ = network
    x_BD = inputs(4)
    x_BD[2] = 3e38
    tier = make_tier(bundle, 0, 4)
    beside = asyncio.create_task(ask(tier, make_request(bundle, inputs(3), point="full")))
    for rows, bad in ((x_BD, 2), (x_BD[2:3], 0)):
        with pytest.raises(Malformed, match=f"Row {bad} leads to numbers that are not finite") as refused:
            await ask(tier, make_request(bundle, rows, point="full"))
        assert refused.value.code == "not_finite"
    assert len(await beside) == 3 and tier.in_flight == 0
    await tier.close()
