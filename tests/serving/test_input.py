"""Cuts at which the input travels instead of the activations, and upstream computes from stage 0 again."""

import math
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from common.bundle import Bundle, write_manifest
from common.errors import BundleError
from common.limits import Limits
from common.serving.tier import Tier
from common.types import Degraded, Tensors
from common.wire.frames import request_bytes
from protos import tier_pb2 as pb
from tests.networks import Skip, skip_manifest, skip_models, write_skip
from tests.serving.chains import Direct, Scripted, ask, inputs, make_chain, make_request, make_tier
from tests.serving.sockets import calling, served, until

DEFAULT = ("max-probability", (0.9, 0.8, 0.0))


def write_forwarding(root: Path, cuts: Sequence[int], compression: str = "none") -> tuple[Bundle, Skip]:
    """The skip network with cuts that forward the input; all cuts are coded very coarsely, to be noticed."""
    _, reference = write_skip(root)
    manifest = skip_manifest(skip_models(reference.weights), codec="u4")
    manifest["input"]["compression"] = compression
    for cut in cuts:
        manifest["cuts"][cut]["forward"] = "input"
    write_manifest(root, manifest)
    return Bundle(root), reference


@pytest.fixture
async def closing() -> AsyncIterator[Callable[[Tier], Tier]]:
    made: list[Tier] = []

    def keep(tier: Tier) -> Tier:
        made.append(tier)
        return tier

    yield keep
    for tier in made:
        await tier.close()


@pytest.mark.parametrize("stops", [[1, 4], [3, 4], [1, 3, 4], [1, 1, 4], [0, 1, 4], [1, 2, 3, 4]])
async def test_upstream_computes_again_and_decides_what_is_left(
    tmp_path: Path, closing: Callable[[Tier], Tier], stops: list[int]
) -> None:
    bundle, reference = write_forwarding(tmp_path, [0, 1, 2])
    chain = [closing(tier) for tier in make_chain(bundle, stops)]
    x_BD = inputs(64)
    answers = await ask(chain[0], make_request(bundle, x_BD))
    assert [(a.label, a.exit) for a in answers] == reference.decide(x_BD, *DEFAULT), "as if nothing were coded"
    for a in answers:
        by = next(k for k, stop in enumerate(stops) if (0, 2, 3)[a.exit] < stop)
        assert (a.tier, a.degraded) == (f"tier{by}", None)
    passed = chain[1].metrics.registry.get_sample_value("offramp_stage_seconds_count", {"tier": "tier1", "stage": "0"})
    assert passed == 1.0


async def test_what_is_forwarded(tmp_path: Path, closing: Callable[[Tier], Tier]) -> None:
    bundle, reference = write_forwarding(tmp_path, [2])
    upstream = Scripted(lambda request, deliver: None)
    tier = closing(make_tier(bundle, 0, 3, upstream=upstream))
    x_BD = inputs(64)
    answers = await ask(tier, make_request(bundle, x_BD, point="entropy"))
    (request,) = upstream.seen
    left = [a.row for a in answers if a.degraded]
    assert list(request.rows.ids) == left
    assert request.start_stage == 0 and request.rows.state == {}
    assert np.array_equal(request.rows.tensors["x"], x_BD[left]) and list(request.rows.tensors) == ["x"]
    assert all(map(math.isnan, request.thresholds[:2])) and request.thresholds[2:] == (1.0,)
    assert [(a.label, a.exit) for a in answers if not a.degraded] == [
        d for d in reference.decide(x_BD, "entropy", (0.2, 0.3, 1.0)) if d[1] < 2
    ]


async def test_a_large_request_keeps_rows_and_inputs_together(tmp_path: Path, closing: Callable[[Tier], Tier]) -> None:
    bundle, reference = write_forwarding(tmp_path, [0])
    above = closing(make_tier(bundle, 1, 4, name="cloud"))
    tier = closing(make_tier(bundle, 0, 1, upstream=Direct(above), limits=Limits(run_rows=7)))
    x_BD = inputs(100)
    answers = await ask(tier, make_request(bundle, x_BD))
    assert [(a.label, a.exit) for a in answers] == reference.decide(x_BD, *DEFAULT)


class _Sure:
    """A stage 0 on a runtime so different that exit 0 would accept every row there."""

    runtime, precision = "other", "float32"

    def __init__(self, stage: object) -> None:
        self._stage = stage

    def run(self, tensors: Tensors) -> Tensors:
        outputs = self._stage.run(tensors)  # type: ignore[attr-defined]
        return outputs | {"logits0": np.eye(5, dtype=np.float32)[np.zeros(len(tensors["x"]), int)] * 99}


async def test_an_exit_that_was_passed_never_accepts_upstream(tmp_path: Path, closing: Callable[[Tier], Tier]) -> None:
    bundle, reference = write_forwarding(tmp_path, [0])
    above = closing(make_tier(bundle, 1, 4, name="cloud"))
    above.runners[0] = _Sure(above.runners[0])  # type: ignore[index]
    below = closing(make_tier(bundle, 0, 1, upstream=Direct(above)))
    x_BD = inputs(64)
    alone = await ask(above, make_request(bundle, x_BD))
    assert {a.exit for a in alone} == {0}, "the other runtime would accept"
    answers = await ask(below, make_request(bundle, x_BD))
    assert [(a.label, a.exit) for a in answers] == reference.decide(x_BD, *DEFAULT)


async def test_what_arrived_as_activations_goes_on_as_activations(
    tmp_path: Path, closing: Callable[[Tier], Tier]
) -> None:
    bundle, _ = write_forwarding(tmp_path, [2])
    top = Scripted(lambda request, deliver: None)
    edge = closing(make_tier(bundle, 1, 3, name="edge", upstream=top))
    device = closing(make_tier(bundle, 0, 1, upstream=Direct(edge)))
    await ask(device, make_request(bundle, inputs(64), point="full"))
    (request,) = top.seen
    assert request.start_stage == 3 and list(request.rows.tensors) == ["h2"] and request.thresholds == ()


async def test_an_upstream_without_stage_0_refuses(tmp_path: Path, closing: Callable[[Tier], Tier]) -> None:
    bundle, reference = write_forwarding(tmp_path / "whole", [0])
    part, _ = write_forwarding(tmp_path / "part", [0])
    (tmp_path / "part" / "stage0.onnx").unlink()
    above = closing(make_tier(part, 1, 4, name="cloud"))
    below = closing(make_tier(bundle, 0, 1, upstream=Direct(above)))
    x_BD = inputs(64)
    answers = await ask(below, make_request(bundle, x_BD))
    assert {a.degraded for a in answers} == {None, Degraded.UPSTREAM_REJECTED}
    assert [a.label for a in answers] == reference.logits(x_BD)[0].argmax(1).tolist()


@pytest.mark.parametrize("unary", [False, True])
async def test_the_input_travels_over_sockets(tmp_path: Path, unary: bool) -> None:
    bundle, reference = write_forwarding(tmp_path, [0], compression="zstd")
    async with (
        served(make_tier(bundle, 1, 4, name="cloud")) as (_, address),
        calling(bundle, 0, 1, [address], unary=unary) as (tier, pool),
    ):
        await until(pool.up)
        x_BD = inputs(64)
        answers = await ask(tier, make_request(bundle, x_BD))
    assert [(a.label, a.exit) for a in answers] == reference.decide(x_BD, *DEFAULT)


def test_the_input_travels_compressed(tmp_path: Path) -> None:
    bundle, _ = write_forwarding(tmp_path, [0], compression="zstd")
    request = make_request(bundle, np.zeros((64, 6), np.float32))
    (sent,) = pb.InferRequest.FromString(request_bytes(request, bundle.manifest.codes(0))).tensors
    assert (sent.name, sent.codec, sent.compression) == ("x", pb.CODEC_RAW, pb.COMPRESSION_ZSTD)
    assert len(sent.data) < 64


async def test_a_relay_without_any_file_passes_inputs_on(tmp_path: Path, closing: Callable[[Tier], Tier]) -> None:
    bundle, reference = write_forwarding(tmp_path, [0])
    top = closing(make_tier(bundle, 1, 4, name="cloud"))
    relay = closing(make_tier(bundle, 0, 0, name="relay", upstream=Direct(top)))
    assert relay.runners == {}
    below = closing(make_tier(bundle, 0, 1, upstream=Direct(relay)))
    x_BD = inputs(32)
    answers = await ask(below, make_request(bundle, x_BD))
    assert [(a.label, a.exit) for a in answers] == reference.decide(x_BD, *DEFAULT)


def test_the_manifest_says_where(tmp_path: Path) -> None:
    bundle, _ = write_forwarding(tmp_path, [0, 2], compression="lz4")
    m = bundle.manifest
    assert m.input_cuts == {0, 2}
    assert [(how.name, how.codec, how.compression) for how in m.codes(0)] == [("x", "raw", "lz4")]
    assert m.codes(3) == m.cuts[2]
    manifest = skip_manifest([b""] * 4)
    manifest["cuts"][0]["forward"] = "everything"
    with pytest.raises(BundleError, match=r"cuts\[0\]\.forward is 'everything'\. It must be one of activations, input"):
        write_manifest(tmp_path, manifest)
