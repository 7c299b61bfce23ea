import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import uvloop

from common.limits import Limits
from common.serving.asgi import AsgiApp, Receive, Scope, Send, send_json
from common.serving.http import HttpLimits, HttpServer
from common.serving.rest import RestDoor
from tests.serving.doors import FakeCore, digits, labels

HOST = "127.0.0.1"
QUICK = HttpLimits(head_s=0.1, body_s=0.1, head_bytes=2000, connections=4)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the number of bytes of the body."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        more = message["more_body"]
    await send_json(send, 200, b"%d" % length)


@asynccontextmanager
async def serving(app: AsgiApp = echo, limits: HttpLimits | None = None) -> AsyncIterator[HttpServer]:
    server = await HttpServer.start(app, HOST, 0, limits)
    try:
        yield server
    finally:
        await server.stop(grace_s=0.0)
        assert server.connections == 0


async def raw(server: HttpServer, *pieces: bytes) -> bytes:
    """Write, and read until the server closes."""
    reader, writer = await asyncio.open_connection(HOST, server.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await reader.read()
    except ConnectionResetError:
        return b"reset"
    finally:
        writer.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Any:
    """Run a test on asyncio's own loop and on uvloop."""

    @pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    def run(runner: Callable[[Any], None], tmp_path: Path) -> None:
        runner(test(tmp_path) if test.__code__.co_argcount else test())  # type: ignore[attr-defined]

    return run


@on_both_loops
async def test_requests_are_answered_on_one_connection() -> None:
    async with serving() as server, httpx.AsyncClient(base_url=f"http://{HOST}:{server.port}") as client:
        for length in (0, 1, 1 << 20):
            assert (await client.post("/", content=bytes(length))).json() == length
        assert server.connections == 1


@on_both_loops
async def test_slow_heads_are_cut_off() -> None:
    async with serving(limits=QUICK) as server:
        for piece in (b"", b"G", b"GET / HTTP/1.1\r\nhost: x\r\n"):
            reply = await raw(server, piece)
            assert reply.startswith(b"HTTP/1.1 408 Request Timeout\r\n") and reply.endswith(
                b'{"error":{"code":"timeout","message":"The request did not arrive in time."}}'
            )


@on_both_loops
async def test_slow_bodies_are_cut_off() -> None:
    async with serving(limits=QUICK) as server:
        reply = await raw(server, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc")
        assert reply.startswith(b"HTTP/1.1 408 ")
        reply = await raw(server, b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        assert reply.startswith(b"HTTP/1.1 408 ")


@on_both_loops
async def test_a_dribble_after_an_answer_is_cut_off_too() -> None:
    async with serving(limits=QUICK) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n0")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()


@on_both_loops
async def test_slow_answers_are_not_cut_off() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.sleep(0.3)
        await send_json(send, 200, b"1")

    async with serving(slow, QUICK) as server, httpx.AsyncClient(base_url=f"http://{HOST}:{server.port}") as client:
        assert (await client.get("/")).json() == 1


@on_both_loops
async def test_long_heads_are_refused() -> None:
    async with serving(limits=QUICK) as server:
        reply = await raw(server, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 400)
        assert reply.startswith(b"HTTP/1.1 431 ") and b'"code":"too_large"' in reply


@on_both_loops
async def test_what_is_not_http_is_refused() -> None:
    async with serving() as server:
        for data in (
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"HELLO\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET http://[ HTTP/1.1\r\n\r\n",
        ):
            reply = await raw(server, data)
            assert reply.startswith(b"HTTP/1.1 400 ") and b'"code":"bad_http"' in reply


@on_both_loops
async def test_connections_are_bounded() -> None:
    async with serving(limits=HttpLimits(connections=2)) as server:
        held = [await asyncio.open_connection(HOST, server.port) for _ in range(2)]
        await until(lambda: server.connections == 2)
        assert (await raw(server)).startswith(b"HTTP/1.1 503 ")
        held[0][1].close()
        await until(lambda: server.connections == 1)
        assert (await raw(server, b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        held[1][1].close()


@on_both_loops
async def test_stopping_lets_running_requests_finish() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def held(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await go.wait()
        await send_json(send, 200, b"1")

    server = await HttpServer.start(held, HOST, 0)
    asking = asyncio.create_task(raw(server, b"GET / HTTP/1.1\r\n\r\n"))
    idle = asyncio.create_task(raw(server))
    await begun.wait()
    await until(lambda: server.connections == 2)
    stopping = asyncio.create_task(server.stop(grace_s=60))
    assert await idle == b""
    with pytest.raises(OSError):
        await asyncio.open_connection(HOST, server.port)
    go.set()
    assert (await asking).startswith(b"HTTP/1.1 200 ")
    await stopping
    await server.stop()


@on_both_loops
async def test_stopping_does_not_wait_for_ever() -> None:
    begun = asyncio.Event()

    async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.Event().wait()

    server = await HttpServer.start(stuck, HOST, 0)
    asking = asyncio.create_task(raw(server, b"GET / HTTP/1.1\r\n\r\n"))
    await begun.wait()
    await server.stop(grace_s=0.05)
    reply = await asking
    assert reply.startswith(b"HTTP/1.1 503 ") and b'"code":"draining"' in reply


@on_both_loops
async def test_a_taken_address_is_told() -> None:
    async with serving() as server:
        with pytest.raises(OSError, match="in use"):
            await HttpServer.start(echo, HOST, server.port)


@on_both_loops
async def test_the_rest_door_over_a_socket(tmp_path: Path) -> None:
    core = FakeCore(tmp_path, digits(size=(2, 2)), Limits(body_bytes=200_000))
    async with serving(RestDoor(core)) as server, httpx.AsyncClient(base_url=f"http://{HOST}:{server.port}") as client:
        inputs = [[i % 256, 0, 0, 0] for i in range(1000)]
        assert labels((await client.post("/predict", json={"inputs": inputs})).json()) == [
            i % 256 % 5 for i in range(1000)
        ]

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(50):
                yield bytes(10_000)

        for content in (bytes(500_000), endless()):
            reply = await client.post("/predict", content=content, headers={"content-type": "application/json"})
            assert reply.status_code == 413
        assert (await client.get("/v2/health/ready")).status_code == 200


@on_both_loops
async def test_a_body_that_is_declared_too_long_is_not_waited_for(tmp_path: Path) -> None:
    core = FakeCore(tmp_path, digits(size=(2, 2)), Limits(body_bytes=1000))
    async with serving(RestDoor(core)) as server:
        for length in (1001, 1 << 20):
            reader, writer = await asyncio.open_connection(HOST, server.port)
            writer.write(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % length)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert head.startswith(b"HTTP/1.1 413 ")
            writer.close()
        assert core.refusals == ["body_too_large"] * 2


@on_both_loops
async def test_a_caller_that_hangs_up_withdraws_its_request(tmp_path: Path) -> None:
    core = FakeCore(tmp_path, digits(size=(2, 2)))
    core.hold = asyncio.Event()
    body = orjson.dumps({"inputs": [[0, 0, 0, 0]]})
    async with serving(RestDoor(core)) as server:
        _, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(
            b"POST /predict HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        await until(lambda: bool(core.requests))
        writer.close()
        await core.withdrawn.wait()


@on_both_loops
async def test_a_caller_that_closes_its_side_is_answered(tmp_path: Path) -> None:
    core = FakeCore(tmp_path, digits(size=(2, 2)))
    body = orjson.dumps({"inputs": [[0, 0, 0, 3]] * 2})  # FakeCore answers several rows after a turn of the loop
    async with serving(RestDoor(core)) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(
            b"POST /predict HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        writer.write_eof()
        reply = await reader.read()
        assert reply.startswith(b"HTTP/1.1 200 OK\r\n") and b"connection: close\r\n" in reply
        assert labels(orjson.loads(reply.partition(b"\r\n\r\n")[2])) == [3, 3]
        writer.close()


@on_both_loops
async def test_a_fragment_is_no_part_of_the_query(tmp_path: Path) -> None:
    body = orjson.dumps({"inputs": [[0, 0, 0, 3]]})
    async with serving(RestDoor(FakeCore(tmp_path, digits(size=(2, 2))))) as server:
        for target in (b"/predict#x", b"/predict?probabilities=true#x?y=1"):
            reply = await raw(
                server,
                b"POST %b HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % (target, len(body)),
                b"connection: close\r\n\r\n" + body,
            )
            assert reply.startswith(b"HTTP/1.1 200 OK\r\n"), reply


@on_both_loops
async def test_head_over_a_socket(tmp_path: Path) -> None:
    async with serving(RestDoor(FakeCore(tmp_path, digits(size=(2, 2))))) as server:
        reply = await raw(server, b"HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert reply.startswith(b"HTTP/1.1 200 OK\r\n") and reply.endswith(b"\r\n\r\n")
        assert b"content-length: 0" not in reply


@on_both_loops
async def test_a_closed_connection_leaves_no_garbage() -> None:
    async with serving() as server:
        gc.disable()
        try:
            _, writer = await asyncio.open_connection(HOST, server.port)
            writer.write(b"POST /x HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET ")
            await until(lambda: server.connections == 1)
            left = weakref.ref(next(iter(server._hub.connections)))
            writer.close()
            await until(lambda: server.connections == 0)
            for _ in range(10):
                await asyncio.sleep(0)
            assert left() is None
        finally:
            gc.enable()
