import asyncio
import socket
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from common.bundle import Bundle
from common.errors import RequestError, Unavailable
from common.limits import Limits
from common.serving.bounds import bounds
from common.serving.upstream import Deliver
from common.types import Answer, Degraded, Request
from common.wire.channels import INFER, INFER_STREAM
from common.wire.frames import request_bytes
from common.wire.http2_frames import Frame, Setting
from protos import tier_pb2 as pb
from protos import tier_pb2_grpc
from tests.networks import Skip, write_skip
from tests.serving.chains import Scripted, ask, inputs, make_request, make_tier
from tests.serving.sockets import calling, local, served, until
from tests.serving.test_tier import THRESHOLDS

Network = tuple[Bundle, Skip]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return write_skip(tmp_path_factory.mktemp("skip"))


@pytest.mark.parametrize("unary", [False, True])
async def test_three_tiers_over_sockets(network: Network, unary: bool) -> None:
    bundle, reference = network
    batches = [inputs(1 + seed % 7, seed) for seed in range(30)]
    async with (
        served(make_tier(bundle, 3, 4, name="cloud")) as (_, cloud),
        calling(bundle, 1, 3, [cloud], name="edge", unary=unary) as (edge, edge_pool),
        served(edge) as (_, edge_at),
        calling(bundle, 0, 1, [edge_at], unary=unary) as (device, pool),
    ):
        await until(lambda: pool.up() and edge_pool.up())
        results = await asyncio.gather(*(ask(device, make_request(bundle, x_BD)) for x_BD in batches))
        seconds = device.metrics.registry.get_sample_value(
            "offramp_upstream_seconds_count", {"tier": "device", "upstream": str(edge_at)}
        )
        forwarded = device.metrics.registry.get_sample_value("offramp_forwarded_bytes_total", {"tier": "device"})
    for x_BD, answers in zip(batches, results, strict=True):
        assert [(a.label, a.exit) for a in answers] == reference.decide(x_BD, *THRESHOLDS["default"])
        for a in answers:
            assert a.degraded is None
            assert [hop.tier for hop in a.hops] == ["device", "edge", "cloud"][: a.exit + 1]
            assert all(hop.network_ms > 0 for hop in a.hops[1:]) and a.hops[0].network_ms == 0
    assert seconds and forwarded


@pytest.mark.parametrize("unary", [False, True])
async def test_an_answered_request_is_not_withdrawn(network: Network, unary: bool) -> None:
    """The last answer ends the call; nothing is left that upstream would have to be told."""
    bundle, _ = network
    async with (
        served(make_tier(bundle, 1, 4, name="cloud")) as (_, address),
        calling(bundle, 0, 1, [address], unary=unary) as (device, pool),
    ):
        await until(pool.up)
        link: Any = next(iter(pool._links.values()))
        withdrawn: list[str | None] = []
        if unary:
            link._in_vain = lambda: withdrawn.append("in vain")
        else:
            send = link._line._stream.send

            def note(message: bytes) -> int:
                withdrawn.append(pb.Up.FromString(message).WhichOneof("message"))
                return int(send(message))

            link._line._stream.send = note
        for _ in range(3):
            await ask(device, make_request(bundle, inputs(2), point="full"))
        assert not {"in vain", "cancel"} & set(withdrawn) and link.rows_in_flight == 0
        assert len(pool._recent) == 3  # what says whether asking upstream would be in vain


async def test_coded_cuts_decide_as_the_codec_says(tmp_path: Path) -> None:
    from common.wire.codecs import round_trip

    bundle, reference = write_skip(tmp_path, codec="u8", compression="zstd")
    x_BD = inputs(32)
    async with (
        served(make_tier(bundle, 1, 4, name="cloud")) as (_, cloud),
        calling(bundle, 0, 1, [cloud]) as (device, pool),
    ):
        await until(pool.up)
        answers = await ask(device, make_request(bundle, x_BD, point="full", want_probabilities=True))
    w = reference.weights
    how = {tensor.name: tensor for tensor in bundle.manifest.cuts[0]}
    h0 = round_trip(np.maximum(x_BD @ w["w0"], 0), how["h0"])
    s = round_trip(x_BD * 2, how["s"])
    h2 = np.maximum((np.maximum(h0 @ w["w1"], 0) + s) @ w["w2"], 0)
    assert [a.label for a in answers] == (h2 @ w["a2"]).argmax(1).tolist()


async def test_upstream_comes_goes_and_comes_back(network: Network) -> None:
    bundle, _ = network
    async with served(make_tier(bundle, 1, 4, name="cloud")) as (_, address):
        pass  # only to find a free port
    async with calling(bundle, 0, 1, [address]) as (device, pool):
        for _ in range(3):
            answers = await ask(device, make_request(bundle, inputs(4), point="full"))
            assert {(a.tier, a.degraded) for a in answers} == {("device", Degraded.UPSTREAM_UNAVAILABLE)}
            async with served(make_tier(bundle, 1, 4, name="cloud"), address):
                await until(pool.up)
                answers = await ask(device, make_request(bundle, inputs(4), point="full"))
                assert {(a.tier, a.degraded) for a in answers} == {("cloud", None)}
            await until(lambda: not pool.up())


async def test_upstream_dies_with_requests_in_flight(network: Network) -> None:
    bundle, _ = network

    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    edge = make_tier(bundle, 1, 1, name="edge", upstream=Scripted(hang), timeout_s=60)
    async with served(edge) as (door, address), calling(bundle, 0, 1, [address], timeout_s=60) as (device, pool):
        await until(pool.up)
        tasks = [asyncio.create_task(ask(device, make_request(bundle, inputs(4), point="full"))) for _ in range(50)]
        await until(lambda: edge.in_flight == 50)
        await door.stop()
        for answers in await asyncio.gather(*tasks):
            assert {(a.tier, a.degraded) for a in answers} == {("device", Degraded.UPSTREAM_UNAVAILABLE)}


async def test_with_two_addresses_one_may_die(network: Network) -> None:
    bundle, reference = network

    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    stuck = make_tier(bundle, 1, 1, name="stuck", upstream=Scripted(hang), timeout_s=60)
    async with (
        served(stuck) as (door, first),
        served(make_tier(bundle, 1, 4, name="cloud")) as (_, second),
        calling(bundle, 0, 1, [first, second], timeout_s=60) as (device, pool),
    ):
        await until(lambda: all(link.up for link in pool._links.values()) and len(pool._links) == 2)
        x_BD = inputs(4)
        tasks = [asyncio.create_task(ask(device, make_request(bundle, x_BD, point="full"))) for _ in range(20)]
        await until(lambda: stuck.in_flight > 0 and sum(task.done() for task in tasks) == 20 - stuck.in_flight)
        await door.stop()
        for answers in await asyncio.gather(*tasks):
            assert [a.label for a in answers] == reference.logits(x_BD)[2].argmax(1).tolist()
            assert {(a.tier, a.degraded) for a in answers} == {("cloud", None)}


async def test_another_digest_is_refused_there_and_degraded_here(
    network: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, _ = network
    other, _ = write_skip(tmp_path, seed=9)
    async with (
        served(make_tier(other, 1, 4, name="cloud")) as (_, address),
        calling(bundle, 0, 1, [address]) as (device, pool),
    ):
        await until(pool.up)
        answers = await ask(device, make_request(bundle, inputs(4), point="full"))
        assert {(a.tier, a.degraded) for a in answers} == {("device", Degraded.UPSTREAM_REJECTED)}
        await until(lambda: any("will refuse" in record.message for record in caplog.records))


async def test_a_late_answer_is_counted_and_dropped(network: Network) -> None:
    bundle, _ = network
    release = asyncio.Event()
    cloud = make_tier(bundle, 1, 4, name="cloud")

    async def late(request: object, deliver: object) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            release.set()  # the Cancel arrived
            raise

    edge = make_tier(bundle, 1, 1, name="edge", upstream=Scripted(late), timeout_s=60)
    async with served(edge) as (_, address), calling(bundle, 0, 1, [address], timeout_s=0.2) as (device, pool):
        await until(pool.up)
        answers = await ask(device, make_request(bundle, inputs(4), point="full"))
        assert {(a.tier, a.degraded) for a in answers} == {("device", Degraded.DEADLINE)}
        await asyncio.wait_for(release.wait(), 10)
        link: Any = next(iter(pool._links.values()))
        reply = pb.InferReply(request_id="gone", answers=[pb.Answer(row_id=1), pb.Answer(row_id=2)], last=True)
        link._line.take(pb.Down(reply=reply).SerializeToString())
        late_rows = device.metrics.registry.get_sample_value("offramp_late_answers_total", {"tier": "device"})
        assert late_rows == 2
    await cloud.close()


async def test_a_late_answer_never_reaches_a_later_request_with_the_same_id(network: Network) -> None:
    """The caller uses its request id again after a time-out, while the first reply is still under way."""
    bundle, reference = network
    cloud = make_tier(bundle, 1, 4, name="cloud")
    slow = True

    async def stubborn(request: Request, deliver: Deliver) -> None:
        """Answers late, and does not let a Cancel stop it, as a reply on the wire would."""
        if slow:
            await asyncio.shield(asyncio.sleep(0.3))
        await cloud.answer(request, deliver)

    edge = make_tier(bundle, 1, 1, name="edge", upstream=Scripted(stubborn), timeout_s=60)
    async with served(edge) as (_, address), calling(bundle, 0, 1, [address], timeout_s=60) as (device, pool):
        await until(pool.up)
        link: Any = next(iter(pool._links.values()))
        stream = link._line._stream
        stream.send = lambda message, send=stream.send: send(message) if b"cancel" not in message else 0
        first, second = inputs(1, 1), inputs(1, 2)
        labels = [reference.logits(x_BD)[2].argmax(1)[0] for x_BD in (first, second)]
        assert labels[0] != labels[1]
        request = make_request(bundle, first, point="full", timeout_s=0.1)
        late = await ask(device, replace(request, request_id="same"))
        assert late[0].degraded == Degraded.DEADLINE
        for _ in range(3):
            request = make_request(bundle, second, point="full")
            answers = await ask(device, replace(request, request_id="same"))
            assert (answers[0].label, answers[0].degraded) == (labels[1], None)
    await cloud.close()


async def test_an_id_may_be_used_again_right_after_its_cancel(network: Network) -> None:
    bundle, _ = network

    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    edge = make_tier(bundle, 1, 4, name="edge", upstream=Scripted(hang))
    async with served(edge) as (_, address), grpc.aio.insecure_channel(str(address)) as channel:
        call = tier_pb2_grpc.TierStub(channel).InferStream()
        message = wire(bundle, request_id="same")
        await call.write(pb.Up(request=message))
        await call.write(pb.Up(cancel=pb.Cancel(request_id="same")))
        await call.write(pb.Up(request=message))
        await call.write(pb.Up(ping=pb.Ping(id=1)))
        kinds = [(await call.read()).WhichOneof("message") for _ in range(2)]
        assert "refusal" not in kinds and "reply" in kinds
        call.cancel()


def wire(network: Bundle, rows: int = 2, /, **changes: object) -> pb.InferRequest:
    message = pb.InferRequest.FromString(request_bytes(make_request(network, inputs(rows)), ()))
    for field, value in changes.items():
        setattr(message, field, value)
    return message


async def test_a_foreign_client_on_the_stream(network: Network) -> None:
    """Bad requests are refused one by one; the stream lives on."""
    bundle, _ = network
    good = wire(bundle)
    short = wire(bundle, request_id="short")
    short.tensors[0].data = b"123"
    unknown = wire(bundle, request_id="unknown", bundle="sha256:ff")
    nan = pb.InferRequest.FromString(request_bytes(make_request(bundle, inputs(2) * np.float32("nan")), ()))
    nan.request_id = "nan"
    twice = wire(bundle, request_id="twice")
    twice.row_ids[:] = [5, 5]
    empty = wire(bundle, request_id="empty", start_stage=0)
    empty.tensors[0].shape[0] = 0
    empty.tensors[0].data = b""
    far = wire(bundle, request_id="far", start_stage=99)
    vast = wire(bundle, request_id="vast")
    vast.tensors[0].shape[:] = [0, 2**32 - 1, 2**32 - 1, 2**32 - 1]
    vast.tensors[0].data = b""
    alias = wire(bundle, request_id="alias")
    alias.state.add(name="h0", dtype=pb.DTYPE_UINT8, shape=[2], data=b"ab")
    async with (
        served(make_tier(bundle, 0, 4, name="cloud")) as (_, address),
        grpc.aio.insecure_channel(str(address)) as channel,
    ):
        call = channel.stream_stream(INFER_STREAM, None, pb.Down.FromString)()
        expected = {"short": 3, "unknown": 9, "nan": 3, "twice": 3, "empty": 3, "far": 3, "vast": 3, "alias": 3, "": 3}
        await call.write(b"\xff no message at all")
        for message in (short, unknown, nan, twice, empty, far, vast, alias):
            await call.write(pb.Up(request=message).SerializeToString())
        found = {}
        for _ in expected:
            down = await call.read()
            assert down.WhichOneof("message") == "refusal"
            found[down.refusal.request_id] = down.refusal.status.code
            assert down.refusal.status.message.endswith(".")
        assert found == expected
        await call.write(pb.Up().SerializeToString())
        await call.write(pb.Up(ping=pb.Ping(id=42)).SerializeToString())
        assert (await call.read()).pong.id == 42
        good.state.add(name="junk", dtype=pb.DTYPE_UINT8, shape=[2], data=b"ab")  # nobody keeps it
        await call.write(pb.Up(request=good).SerializeToString())
        await call.done_writing()
        answered: list[int] = []
        last = False
        while (down := await call.read()) is not grpc.aio.EOF:
            answered.extend(a.row_id for a in down.reply.answers)
            last = down.reply.last
        assert sorted(answered) == [0, 1] and last


async def test_unary_describe_health_and_reflection(network: Network) -> None:
    bundle, reference = network
    async with (
        served(make_tier(bundle, 0, 4, name="cloud")) as (door, address),
        grpc.aio.insecure_channel(str(address)) as channel,
    ):
        stub = tier_pb2_grpc.TierStub(channel)
        reply = await stub.Infer(wire(bundle, 8))
        labels = {a.row_id: a.label for a in reply.answers}
        assert [labels[r] for r in range(8)] == [
            label for label, _ in reference.decide(inputs(8), *THRESHOLDS["default"])
        ]
        assert reply.last
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Infer(wire(bundle, bundle="sha256:ff"))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        infer = channel.unary_unary(INFER, None, None)
        with pytest.raises(grpc.aio.AioRpcError, match=r"not an offramp\.v1\.InferRequest") as undecodable:
            await infer(b"\xff\xff")
        assert undecodable.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await stub.Describe(pb.DescribeRequest())).bundle == bundle.digest
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest(service="offramp.v1.Tier"))).status == 1
        await door.set_ready(False)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 2
        listing = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await listing.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = {s.name for s in (await listing.read()).list_services_response.service}
        assert "offramp.v1.Tier" in names
        listing.cancel()


async def test_a_draining_tier_refuses(network: Network) -> None:
    bundle, _ = network
    async with (
        served(make_tier(bundle, 1, 4, name="cloud")) as (door, address),
        calling(bundle, 0, 1, [address]) as (device, pool),
    ):
        await until(pool.up)
        door.servicer.draining = True
        answers = await ask(device, make_request(bundle, inputs(4), point="full"))
        assert {a.degraded for a in answers} == {Degraded.UPSTREAM_UNAVAILABLE}


class Noting:
    """A call that notes how it ended."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.error: RequestError | None = None

    def answered(self, answers: Sequence[Answer]) -> None:
        raise AssertionError("nobody could have answered")

    def ended(self, error: RequestError | None) -> None:
        self.error = error


async def test_a_down_link_refuses_at_once(network: Network) -> None:
    bundle, _ = network
    async with calling(bundle, 0, 1, [local(1)]) as (_, pool):
        call = Noting(make_request(bundle, inputs(1)))
        pool.forward(call)
        assert isinstance(call.error, Unavailable)


async def test_a_slow_spell_does_not_shut_the_door(network: Network) -> None:
    bundle, _ = network
    async with calling(bundle, 0, 1, [local(1)]) as (_, pool):
        assert not pool.in_vain(0.01)
        pool._recent.extend([0.5, 0.6, 0.7])
        assert not pool.in_vain(0.55)
        assert [pool.in_vain(0.1) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("window", [0, (1 << 31) - 1])
async def test_what_waits_for_an_upstream_that_takes_nothing_is_bounded(network: Network, window: int) -> None:
    """It speaks, so it is up; but it opens no window, or does not read."""
    bundle, _ = network
    pong = pb.Down(pong=pb.Pong(id=1)).SerializeToString()
    more = struct.pack(">I", window // 2)
    words = h2(Frame.SETTINGS, struct.pack(">HI", Setting.INITIAL_WINDOW_SIZE, window))
    words += h2(Frame.HEADERS, b"\x88", flags=4, stream=1) + h2(Frame.WINDOW_UPDATE, more) * bool(window)

    speaking: set[asyncio.Task[None]] = set()

    async def speak(transport: asyncio.Transport) -> None:
        transport.pause_reading()
        transport.write(words)
        try:
            while not transport.is_closing():
                transport.write(h2(Frame.DATA, struct.pack(">BI", 0, len(pong)) + pong, stream=1))
                await asyncio.sleep(0.05)
        finally:
            transport.abort()

    class Speaker(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            speaking.add(asyncio.create_task(speak(transport)))

    small = Limits(max_message_bytes=1 << 16)
    held = socket.create_server(("127.0.0.1", 0))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    async with (
        await asyncio.get_running_loop().create_server(Speaker, sock=held),
        calling(bundle, 0, 1, [local(held.getsockname()[1])], timeout_s=0.02, limits=small) as (device, pool),
    ):
        await until(pool.up)
        link: Any = next(iter(pool._links.values()))
        kernel = link._line._stream._transport.get_extra_info("socket")
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)  # which would hold megabytes
        most = 4 * bounds(bundle.manifest, device.limits).message_bytes
        for _ in range(300):
            answers = await ask(device, make_request(bundle, inputs(1024), point="full"))
            assert {(a.tier, a.degraded) for a in answers} == {("device", Degraded.DEADLINE)} and pool.up()
            if link._line.unsent > most:
                break
        unsent = link._line.unsent
        assert most < unsent < most + (1 << 17) and link.rows_in_flight == 0
        answers = await ask(device, make_request(bundle, inputs(64), point="full"))
        assert {(a.tier, a.degraded) for a in answers} == {("device", Degraded.DEADLINE)}
        assert link._line.unsent == unsent
        for task in speaking:
            task.cancel()


def h2(kind: int, payload: bytes, *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload
