"""A stream with a connection to itself: against gRPC's own server, in pieces of any size, and with a peer that errs."""

import asyncio
import gzip
import itertools
import random
import struct
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.wire.http2 import MessageStream
from common.wire.http2_frames import PREFACE, Frame, ProtocolError, Setting, is_ours

PATH = "/test.Echo/Stream"
SIZES = (0, 1, 4, 5, 100, 16_379, 16_384, 65_536, 70_000, 300_000, 5_000_000)


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closed = self.paused = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def writelines(self, parts: Any) -> None:
        for part in parts:
            self.sent += part

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def taken(self) -> bytes:
        sent, self.sent = bytes(self.sent), bytearray()
        return sent


class End:
    """One end of a stream and what it has heard."""

    def __init__(self, role: str, most: int = 10_000_000) -> None:
        self.messages: list[bytes] = []
        self.lost: list[Exception | None] = []
        self.left = 0
        self.wire = Wire()
        self.stream = MessageStream(
            max_message_bytes=most,
            received=lambda m: self.messages.append(bytes(m)),
            lost=self.lost.append,
            leaving=self._leave,
        )
        if role == "client":
            self.stream.dial(path=PATH, authority="test")
        else:
            self.stream.serve(path=PATH)
        self.stream.connection_made(self.wire)  # type: ignore[arg-type]

    def _leave(self) -> None:
        self.left += 1


def exchange(client: End, server: End, piece: int) -> None:
    """Carry bytes between two ends, in pieces, until neither has more."""
    while client.wire.sent or server.wire.sent:
        for source, target in ((client, server), (server, client)):
            data = source.wire.taken()
            if data.startswith(PREFACE):
                assert source is client and is_ours(data)
                data = data[len(PREFACE) :]
            for at in range(0, len(data), piece):
                target.stream.feed(data[at : at + piece])


@pytest.mark.parametrize("piece", [1, 7, 65_535, 1 << 30])
def test_messages_arrive_whole_in_pieces_of_any_size(piece: int) -> None:
    client, server = End("client"), End("server")
    exchange(client, server, piece)
    messages = [bytes((k % 251,)) * size for k, size in enumerate(SIZES) if piece > 1 or size < 100_000]
    wire_bytes = sum(map(client.stream.send, messages))
    assert len(client.wire.sent) == wire_bytes
    sum(map(server.stream.send, messages[::-1]))
    exchange(client, server, piece)
    assert server.messages == messages and client.messages == messages[::-1]
    assert not client.lost and not server.lost


def test_before_the_peers_settings_its_default_window_holds() -> None:
    client, server = End("client"), End("server")
    message = bytes(200_000)
    opening = client.wire.taken()
    client.stream.send(message)
    client.stream.send(b"second")
    assert client.stream.unsent
    assert len(client.wire.sent) == 65_535 + 9 * 4  # four frames of at most 16 KB
    server.stream.feed(opening[len(PREFACE) :])
    exchange_rest(client, server)
    assert server.messages == [message, b"second"] and not client.stream.unsent


def message_frames(message: bytes, frames: list[int]) -> bytes:
    """A message with its prefix, in data frames of these sizes, again and again."""
    data, sizes, at, result = struct.pack(">BI", 0, len(message)) + message, itertools.cycle(frames), 0, b""
    while at < len(data):
        part = data[at : at + next(sizes)]
        result += frame(Frame.DATA, part, stream=1)
        at += len(part)
    return result


@settings(max_examples=40, deadline=None)
@given(
    size=st.one_of(
        st.integers(0, 1 << 17),
        st.integers(-2, 2).map(lambda more: (1 << 20) + more),
        st.integers(-2, 2).map(lambda more: (1 << 21) + more),
        st.integers(1 << 20, 5 << 20),
    ),
    frames=st.lists(st.integers(1 << 12, 1 << 21), min_size=1, max_size=4),
    pieces=st.lists(st.integers(1 << 10, 1 << 22), min_size=1, max_size=4),
)
def test_a_message_is_whole_however_it_grows(size: int, frames: list[int], pieces: list[int]) -> None:
    server = End("server")
    server.stream.feed(HELLO)
    message = random.Random(size).randbytes(size)
    wire = message_frames(message, frames) + message_frames(b"next", frames)
    at = 0
    for piece in itertools.cycle(pieces):
        server.stream.feed(wire[at : at + piece])
        at += piece
        if at >= len(wire):
            break
    assert [len(m) for m in server.messages] == [size, 4] and server.messages == [message, b"next"]


def test_what_a_message_says_of_its_size_takes_no_memory() -> None:
    size, there = 64 << 20, 5 << 20
    server = End("server", most=size)
    server.stream.feed(HELLO)
    start = frame(Frame.DATA, struct.pack(">BI", 0, size) + b"x", stream=1)
    tracemalloc.start()
    try:
        server.stream.feed(start)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
        server.stream.feed(frame(Frame.DATA, bytes(there), stream=1))
        assert tracemalloc.get_traced_memory()[0] < 4 * there
    finally:
        tracemalloc.stop()
    assert not server.lost


def test_a_size_that_has_come_before_is_set_aside_at_once() -> None:
    size = 4 << 20
    message = message_frames(bytes(size), [1 << 23])
    server = End("server")
    server.stream.feed(HELLO)
    for set_aside in (1 << 20, size):
        server.stream.feed(message[:100])
        assert len(server.stream.get_buffer(-1)) == set_aside - (100 - 9 - 5)
        server.stream.feed(message[100:])
    assert [len(m) for m in server.messages] == [size, size]
    server.stream.feed(message_frames(bytes(2 * size), [1 << 24])[:100])
    assert len(server.stream.get_buffer(-1)) == size - (100 - 9 - 5)  # a longer one has yet to arrive


def exchange_rest(client: End, server: End) -> None:
    while client.wire.sent or server.wire.sent:
        server.stream.feed(client.wire.taken())
        client.stream.feed(server.wire.taken())


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def test_a_shrinking_window_is_obeyed() -> None:
    client = End("client")
    client.stream.feed(frame(Frame.SETTINGS, struct.pack(">HI", Setting.INITIAL_WINDOW_SIZE, 10)))
    client.wire.taken()
    client.stream.send(b"x" * 20)
    assert len(client.wire.taken()) == 9 + 10
    client.stream.feed(frame(Frame.SETTINGS, struct.pack(">HI", Setting.INITIAL_WINDOW_SIZE, 0)))
    client.wire.taken()
    client.stream.feed(frame(Frame.WINDOW_UPDATE, struct.pack(">I", 10), stream=1))
    assert client.wire.taken() == b""  # the window was ten below zero
    client.stream.feed(frame(Frame.WINDOW_UPDATE, struct.pack(">I", 100), stream=1))
    assert len(client.wire.taken()) == 9 + 15


HELLO = frame(Frame.HEADERS, b"...." + PATH.encode(), flags=4, stream=1)


@pytest.mark.parametrize(
    "bad",
    [
        frame(Frame.DATA, b"\0\0\0\0\1x", stream=1),  # before the call
        HELLO + frame(Frame.DATA, b"\1\0\0\0\1x", stream=1),  # compressed
        HELLO + frame(Frame.DATA, b"\0\0\1\0\0x", stream=1),  # longer than is accepted
        HELLO + frame(Frame.DATA, b"\2\0\0\0\0\1x\0\0", flags=8, stream=1),  # padded
        HELLO + frame(Frame.DATA, b"", flags=1, stream=1),  # the end
        HELLO + frame(Frame.DATA, b"\0\0\0\0\0", stream=3),
        HELLO + frame(Frame.RST_STREAM, bytes(4), stream=1),
        frame(Frame.HEADERS, b"/test.Echo/Other", flags=4, stream=1),
        frame(Frame.HEADERS, b"", flags=5, stream=1),
        frame(Frame.SETTINGS, b"12345"),
        frame(Frame.SETTINGS, struct.pack(">HI", Setting.MAX_FRAME_SIZE, 1)),
        frame(Frame.SETTINGS, struct.pack(">HI", Setting.INITIAL_WINDOW_SIZE, 1 << 31)),
        frame(Frame.WINDOW_UPDATE, b"\x7f\xff\xff\xff"),
        frame(Frame.WINDOW_UPDATE, b"123"),
        frame(Frame.WINDOW_UPDATE, bytes(4)),
        frame(Frame.WINDOW_UPDATE, b"\x80\0\0\0", stream=1),  # 0 beside the reserved bit
        frame(Frame.PING, b"123"),
        frame(Frame.GOAWAY, b"1234567"),
        b"\xff" * 100,
    ],
)
def test_a_peer_that_errs_is_left(bad: bytes) -> None:
    server = End("server", most=1000)
    server.stream.feed(bad)
    (why,) = server.lost
    assert isinstance(why, ProtocolError) and server.wire.closed
    server.stream.connection_lost(None)
    assert len(server.lost) == 1 and not server.messages and server.stream.send(b"x") == 0


def test_pings_are_answered_and_what_says_nothing_is_passed_over() -> None:
    client = End("client")
    client.wire.taken()
    client.stream.feed(frame(Frame.PING, b"12345678") + frame(99, b"?"))
    client.stream.feed(frame(Frame.HEADERS, b"\x88", flags=4, stream=1) + frame(Frame.SETTINGS, flags=1))
    assert client.wire.taken() == frame(Frame.PING, b"12345678", flags=1)
    assert not client.lost


def test_a_server_that_goes_away_is_heard() -> None:
    """What is on the stream goes on, where the server has taken it; where not, it may be sent elsewhere at once."""
    client, server = End("client"), End("server")
    exchange(client, server, 1 << 30)
    for last in ((1 << 31) - 1, 1):
        client.stream.feed(frame(Frame.GOAWAY, struct.pack(">II", last, 0) + b"max_age"))
    assert client.left == 2 and not client.lost
    client.stream.send(b"still here")
    exchange(client, server, 1 << 30)
    assert server.messages == [b"still here"]
    client.stream.feed(frame(Frame.GOAWAY, struct.pack(">II", 0, 0)))
    (why,) = client.lost
    assert isinstance(why, ProtocolError) and client.wire.closed
    server.stream.feed(frame(Frame.GOAWAY, bytes(8)))  # of a client, who closes when it likes
    assert not server.left and not server.lost


def test_a_server_waits_for_a_peer_that_does_not_read() -> None:
    server, client = End("server"), End("client")
    for end, paused in ((server, True), (client, False)):
        end.stream.pause_writing()
        assert end.wire.paused == paused
        end.stream.resume_writing()
        assert not end.wire.paused


def test_what_a_server_holds_for_a_peer_without_a_window_is_bounded() -> None:
    server = End("server", most=1000)
    server.stream.feed(frame(Frame.SETTINGS, struct.pack(">HI", Setting.INITIAL_WINDOW_SIZE, 0)) + HELLO)
    held = 0
    while not server.wire.closed and held < 200_000:
        held += 1
        server.stream.send(b"0123456789")
    assert 3000 < held < 5000
    assert server.stream.send(b"x") == 0 and not server.lost  # nobody is told in the middle of sending
    server.stream.connection_lost(None)
    (why,) = server.lost
    assert isinstance(why, ProtocolError) and "no window" in str(why) and not server.stream.unsent


def test_what_was_held_and_sent_counts_no_more() -> None:
    server = End("server", most=1000)
    server.stream.feed(frame(Frame.SETTINGS, struct.pack(">HI", Setting.INITIAL_WINDOW_SIZE, 0)) + HELLO)
    more = struct.pack(">I", 1000 * 15)
    for _ in range(20):
        for _ in range(1000):
            server.stream.send(b"0123456789")
        server.stream.feed(frame(Frame.WINDOW_UPDATE, more, stream=1) + frame(Frame.WINDOW_UPDATE, more))
    assert not server.stream.unsent and not server.wire.closed


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("asked", [frame(Frame.PING, bytes(8)), frame(Frame.SETTINGS)])
def test_a_peer_that_asks_and_does_not_read_is_left(role: str, asked: bytes) -> None:
    end = End(role)
    for reads in (True, False):
        if not reads:
            end.stream.pause_writing()
        for _ in range(200):
            end.stream.feed(asked * 1000)
        if reads:
            assert not end.lost
    (why,) = end.lost
    assert isinstance(why, ProtocolError) and "does not read" in str(why) and end.wire.closed
    assert len(end.wire.sent) < 200 * 1000 * len(asked) + (1 << 20) + 1000


@pytest.mark.parametrize(
    ("head", "ours"),
    [
        (b"", None),
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (PREFACE[:10], None),
        (PREFACE + frame(Frame.SETTINGS)[:8], None),
        (PREFACE + frame(Frame.SETTINGS), False),
        (PREFACE + frame(Frame.PING, bytes(8)), False),
        (PREFACE + frame(Frame.SETTINGS, struct.pack(">HI", 0x6F66, 1)), True),
        (PREFACE + frame(Frame.SETTINGS, struct.pack(">HI", 0x6F66, 1))[:-1], None),
    ],
)
def test_who_calls(head: bytes, ours: bool | None) -> None:
    assert is_ours(head) is ours


def packed(message: bytes) -> bytes:
    return frame(Frame.DATA, b"\1" + len(message).to_bytes(4) + message, stream=1)


@pytest.mark.parametrize("piece", [1, 1000])
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_what_a_server_compresses_all_the_same_is_read(pack: Callable[[bytes], bytes], piece: int) -> None:
    client = End("client", most=1000)
    said = packed(pack(bytes(1000))) + frame(Frame.DATA, b"\0\0\0\0\1x", stream=1) + packed(pack(b""))
    for at in range(0, len(said), piece):
        client.stream.feed(said[at : at + piece])
    assert client.messages == [bytes(1000), b"x", b""] and not client.lost


@pytest.mark.parametrize("bad", [b"", b"no such thing", gzip.compress(bytes(1001)), gzip.compress(b"cut off")[:-1]])
def test_a_server_that_compresses_wrongly_is_left(bad: bytes) -> None:
    client = End("client", most=1000)
    client.stream.feed(packed(bad))
    (why,) = client.lost
    assert isinstance(why, ProtocolError) and not client.messages


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_against_the_server_of_grpc(compression: grpc.Compression | None) -> None:
    """Its windows are smaller than these messages, and it sends pings and updates of its own."""

    async def echo(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        async for message in requests:
            yield message

    most = 8_000_000
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", most)], compression=compression)
    methods = {"Stream": grpc.stream_stream_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    back: asyncio.Queue[bytes | None] = asyncio.Queue()
    stream = MessageStream(
        max_message_bytes=most, received=lambda m: back.put_nowait(bytes(m)), lost=lambda _: back.put_nowait(None)
    ).dial(path=PATH, authority=f"127.0.0.1:{port}")
    await asyncio.get_running_loop().create_connection(lambda: stream, "127.0.0.1", port)
    try:
        async with asyncio.timeout(30):
            for _ in range(3):
                messages = [bytes((size % 256,)) * size for size in SIZES]
                for message in messages:
                    stream.send(message)
                for message in messages:
                    assert await back.get() == message
            await server.stop(None)
            assert await back.get() is None
    finally:
        stream.close()
        await server.stop(None)
