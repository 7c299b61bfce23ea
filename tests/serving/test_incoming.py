"""One address for tiers and for everybody who speaks gRPC."""

import asyncio
from pathlib import Path

import grpc
import pytest
import uvloop

from common.address import Address
from common.limits import Limits
from common.serving import grpc_door, incoming
from common.serving.grpc_door import GrpcDoor
from common.wire.channels import INFER_STREAM
from common.wire.http2 import MessageStream
from common.wire.http2_frames import FRAME_HEADER, PREFACE, Frame
from protos import tier_pb2 as pb
from protos import tier_pb2_grpc
from tests.networks import write_skip
from tests.serving.chains import ask, inputs, make_request, make_tier
from tests.serving.doors import FakeCore, digits
from tests.serving.sockets import LOOPBACK, calling, served, until


def test_on_the_event_loop_that_tiers_run_on(tmp_path: Path) -> None:
    bundle, reference = write_skip(tmp_path)

    async def main() -> None:
        async with (
            served(make_tier(bundle, 1, 4, name="cloud")) as (_, address),
            calling(bundle, 0, 1, [address]) as (device, pool),
            grpc.aio.insecure_channel(str(address)) as channel,
        ):
            await until(pool.up)
            x_BD = inputs(4)
            answers = await ask(device, make_request(bundle, x_BD, point="full"))
            assert [a.label for a in answers] == reference.logits(x_BD)[2].argmax(1).tolist()
            assert {a.tier for a in answers} == {"cloud"}
            describe = tier_pb2_grpc.TierStub(channel).Describe
            assert (await describe(pb.DescribeRequest())).bundle == bundle.digest

    uvloop.run(main())


MARKED = PREFACE + bytes((0, 0, 6, Frame.SETTINGS, 0, 0, 0, 0, 0)) + b"\x6f\x66\0\0\0\1"


@pytest.mark.parametrize("said", [b"", PREFACE, PREFACE[:5], MARKED])
async def test_who_says_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(incoming, "HELLO_S", 0.1)
    bundle, _ = write_skip(tmp_path)
    async with served(make_tier(bundle, 0, 4, name="cloud")) as (door, address):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(said)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 10)
            raise ConnectionResetError  # closed without a word is as good
        writer.close()
        await until(lambda: not door._connections)


@pytest.mark.parametrize("pieces", [1, 2])
async def test_a_tier_that_has_called_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    monkeypatch.setattr(incoming, "HELLO_S", 0.05)
    bundle, _ = write_skip(tmp_path)
    async with served(make_tier(bundle, 0, 4, name="cloud")) as (door, address):
        lost: list[Exception | None] = []
        heard: list[bytes | bytearray] = []
        stream = MessageStream(max_message_bytes=1000, received=heard.append, lost=lost.append)
        stream.dial(path=INFER_STREAM, authority="test")
        call = stream._opening.index(b"\0\x07:method") - FRAME_HEADER
        first, stream._opening = (
            (stream._opening[:call], stream._opening[call:]) if pieces == 2 else (b"", stream._opening)
        )
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, address.host, address.port)
        if first:
            transport.write(first)
            await until(lambda: any(isinstance(each.get_protocol(), MessageStream) for each in door._connections))
        transport.set_protocol(stream)
        stream.connection_made(transport)
        silent, mute = await asyncio.open_connection(address.host, address.port)
        assert await silent.read() == b"", "whoever came later and said nothing has been left"
        mute.close()
        stream.send(pb.Up(ping=pb.Ping(id=1)).SerializeToString())
        await until(lambda: bool(heard))
        assert not lost and len(door._connections) == 1
        stream.close()
        await until(lambda: not door._connections)


async def test_a_tier_whose_connection_is_closed_for_a_mistake_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, _ = write_skip(tmp_path)
    async with served(make_tier(bundle, 0, 4, name="cloud")) as (door, address):
        for _ in range(3):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(MARKED + bytes((0, 0, 1, Frame.RST_STREAM, 0, 0, 0, 0, 1, 7)))
            while await _read(reader):
                pass
            writer.close()
        await until(lambda: not door._connections)
        said = [r.getMessage() for r in caplog.records if "was closed" in r.getMessage()]
        assert [line.split(": ")[1] for line in said] == [f"a frame of type 3 (07) ({n} so far)" for n in (1, 2)]
        assert said[0].startswith("the connection of a tier at 127.0.0.1:")


async def test_connections_beyond_the_limit_are_closed_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, _ = write_skip(tmp_path)
    tier = make_tier(bundle, 0, 4, name="cloud", limits=Limits(grpc_connections=2))
    async with served(tier) as (door, address):
        held = [await asyncio.open_connection(address.host, address.port) for _ in range(2)]
        await until(lambda: len(door._connections) == 2)
        for _ in range(3):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(), 5)
                raise ConnectionResetError  # closed without a word is as good
            writer.close()
        assert len(door._connections) == 2
        assert [r.getMessage() for r in caplog.records if "refused" in r.getMessage()] == [
            "2 connections are open at the gRPC door: 1 refused so far",
            "2 connections are open at the gRPC door: 2 refused so far",
        ]
        for _, writer in held:
            writer.close()
        await until(lambda: not door._connections)
        async with grpc.aio.insecure_channel(str(address)) as channel:
            describe = tier_pb2_grpc.TierStub(channel).Describe
            assert (await describe(pb.DescribeRequest())).bundle == bundle.digest


async def test_who_speaks_something_else_hears_what_grpc_says(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    async with served(make_tier(bundle, 0, 4, name="cloud")) as (door, address):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 10)  # a SETTINGS frame, and the end
        writer.close()
        await until(lambda: not door._connections)


async def test_an_address_is_taken_once(tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path)
    async with served(make_tier(bundle, 0, 4, name="cloud")) as (door, address):
        assert door._folder is not None
        folder = door._folder.path
        with pytest.raises(OSError, match="in use"):
            async with served(make_tier(bundle, 0, 4, name="other"), address):
                pass
        with pytest.raises(OSError, match="assign"):
            async with served(make_tier(bundle, 0, 4, name="other"), Address(host="192.0.2.1", port=0)):
                pass
    assert not folder.exists()


async def test_a_reply_under_way_arrives_although_the_door_closes(tmp_path: Path) -> None:
    """A drained tier is through with the request; gRPC's library is not yet."""
    core = FakeCore(tmp_path, digits())
    core.hold = asyncio.Event()
    door = GrpcDoor(core, pb.DescribeReply())
    port = await door.start(LOOPBACK)
    pixels = pb.Tensor(name="image", dtype=pb.DTYPE_UINT8, shape=[1, 1, 28, 28], data=bytes(784))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = pb.InferRequest(bundle=core.bundle.digest, row_ids=[7], tensors=[pixels])
        call = tier_pb2_grpc.TierStub(channel).Infer(request)
        await until(lambda: bool(core.requests))
        core.hold.set()
        await door.stop()
        assert [answer.row_id for answer in (await call).answers] == [7]


async def test_what_was_said_to_a_tier_arrives_although_the_door_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_door, "FLUSH_S", 30.0)
    bundle, _ = write_skip(tmp_path)
    async with served(make_tier(bundle, 0, 4, name="cloud")) as (door, address):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(MARKED)
        assert await reader.readexactly(9)  # its settings: it serves a tier
        said = 32 << 20  # more than sockets hold
        next(iter(door._connections)).write(bytes(said))
        stopping = asyncio.create_task(door.stop())
        heard = len(await reader.read(1 << 16))
        assert not stopping.done()
        while piece := await _read(reader):
            heard += len(piece)
        await stopping
        assert heard >= said
        writer.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 20)
    except ConnectionResetError:
        return b""
