import asyncio

import pytest

from common.serving.connection import Connection
from common.serving.exchange import HIGH_WATER, Quick, Reply, Respond
from common.serving.hub import HttpLimits, Hub
from common.serving.known_heads import KnownHeads
from tests.serving.test_connection import KINDS, Echo, Wire, post, run


def quick(body: bytes, respond: Respond) -> None:
    respond(Reply(200, body))


def head(*fields: bytes, length: bytes = b"content-length: 3") -> bytes:
    return b"\r\n".join([b"POST /predict HTTP/1.1", *fields, length, b"\r\n"])


def learnt(request: bytes, fields: list[tuple[bytes, bytes]] | None = None, length: int = 3) -> KnownHeads:
    heads = KnownHeads()
    heads.learn(request, quick, fields or [(b"content-length", b"3")], length)
    return heads


@pytest.mark.parametrize("length", [b"content-length: 3", b"Content-Length: 3"])
@pytest.mark.parametrize("fields", [[], [b"host: x", b"a-length: 7 of something"]])
def test_a_head_is_known_again_with_a_body_of_any_length(length: bytes, fields: list[bytes]) -> None:
    heads = learnt(head(*fields, length=length) + b"abc")
    if fields:
        assert len(heads) == 0  # another field looks like the length: not worth a rule
        return
    assert heads.find(head(length=length) + b"xyz") == (quick, b"xyz")
    longer = head(length=length[:-1] + b"12") + b"x" * 12
    assert heads.find(longer) == (quick, b"x" * 12)
    assert heads.find(head(length=length[:-1] + b"0")) == (quick, b"")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        head(),
        head() + b"ab",
        head() + b"abcd",
        head() + b"abc" + head() + b"abc",
        head(b"host: y") + b"abc",
        head(length=b"content-length: +3") + b"abc",
        head(length=b"content-length:  3") + b"abc",
        head(length=b"content-length: 3 ") + b"abc",
        head(length=b"content-length: \xb2") + b"ab",
        head(length=b"content-length: ") + b"abc",
        head(length=b"content-length: " + b"9" * 30) + b"abc",
        head(length=b"transfer-encoding: chunked") + b"abc",
        head()[:-2] + b"abc",
        b"\r\n" + head() + b"abc",
        head().replace(b"POST", b"PUT") + b"abc",
        head().replace(b"\r\n", b"\n") + b"abc",
    ],
)
def test_anything_else_goes_to_the_parser(data: bytes) -> None:
    assert learnt(head() + b"abc").find(data) is None


@pytest.mark.parametrize(
    ("request_", "fields", "length"),
    [
        (head() + b"abc", [(b"content-length", b"3"), (b"content-length", b"3")], 3),
        (head() + b"abc", [(b"content-length", b"3"), (b"transfer-encoding", b"chunked")], 3),
        (head() + b"abc", [(b"content-length", b"03")], 3),
        (head() + b"abcd", None, 3),  # more than one request
        (b"\r\n\r\n" + head() + b"abc", None, 3),
        (head(b"a: " + b"x" * 3000) + b"abc", None, 3),
        (head(length=b"x-content-length: 3") + b"abc", None, 3),
        (b"POST /predict HTTP/1.1\ncontent-length: 7\n\nabc\r\n\r\n", [(b"content-length", b"7")], 7),
    ],
)
def test_what_is_not_learnt(request_: bytes, fields: list[tuple[bytes, bytes]] | None, length: int) -> None:
    assert len(learnt(request_, fields, length)) == 0


def test_heads_are_bounded() -> None:
    heads = KnownHeads()
    for number in range(2000):
        heads.learn(head(b"x: %d" % number) + b"abc", quick, [(b"content-length", b"3")], 3)
        assert heads.find(head(b"x: %d" % number) + b"abc") is not None
        assert len(heads) <= 256


def test_a_head_is_parsed_once() -> None:
    class Counting(Echo):
        heads = 0

        def predict(self, headers: list[tuple[bytes, bytes]], query: bytes) -> Quick:
            self.heads += 1
            return super().predict(headers, query)

    async def inside() -> None:
        app = Counting()
        hub = Hub(app=app, quick=app.quick, limits=HttpLimits())
        for _ in range(2):
            wire = Wire(Connection(hub))
            for body in (b"one", b"another", b"", bytes(HIGH_WATER)):
                for request in (post(b"/predict", body), post(b"/predict?wait", body)):
                    await wire.feed(request)
                    await wire.settle()
            assert [reply for _, reply in wire.replies()] == [
                b"q" + body[:20] + b"%d" % len(body)
                for body in (b"one", b"another", b"", bytes(HIGH_WATER))
                for _ in range(2)
            ]
            wire.close()
            await wire.settle()
        assert app.heads == 2 and len(hub.heads) == 2

    asyncio.run(inside())


@pytest.mark.parametrize(
    "kind", ["connection: close", "HTTP/1.0", "expect: 100-continue", "transfer-encoding: chunked"]
)
def test_a_head_that_wants_more_is_not_known(kind: str) -> None:
    request = post(b"/predict", b"one", kind.encode())
    if kind.startswith("HTTP"):
        request = post(b"/predict", b"one").replace(b"HTTP/1.1", b"HTTP/1.0")
    if kind.startswith("transfer"):
        request = KINDS["quick, chunked"][0]

    async def test(app: Echo, wire: Wire) -> None:
        await wire.feed(request)
        await wire.settle()
        assert len(wire.connection.hub.heads) == 0 and len(wire.replies()) >= 1

    run(test)


def test_known_requests_keep_their_place_and_the_connections_rules() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        request = KINDS["quick"][0]
        await wire.feed(request)
        assert len(wire.connection.hub.heads) == 1
        await wire.feed(KINDS["quick, waits"][0], request, KINDS["other"][0], request)
        await wire.settle()
        assert [body for _, body in wire.replies()] == [b"qone3", b"qtwo3", b"qone3", b"afour4", b"qone3"]
        assert wire.connection.due < float("inf") and wire.reading
        app.gate = asyncio.Event()
        await wire.feed(request, request[:-1])
        wire.connection.shutdown()
        await wire.feed(request[-1:] + request)
        app.gate.set()
        await wire.settle()
        assert len(wire.replies()) == 7 and wire.closed and wire.written.count(b"connection: close") == 1

    run(test)


def test_a_server_that_stops_answers_a_quick_request_that_waits() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        app.gate = asyncio.Event()
        await wire.feed(KINDS["quick"][0])
        wire.connection.shutdown()
        wire.connection.cut_short()
        await wire.settle()
        assert [status for status, _ in wire.replies()] == [503] and b'"draining"' in wire.written
        assert wire.closed and app.withdrawn == 1

    run(test)


@pytest.mark.parametrize("begun", [b"P", b"POST /other HTTP/1.1\r\ncontent-length: 0\r\nx: "])
def test_what_continues_a_head_is_not_taken_for_a_request(begun: bytes) -> None:
    async def test(app: Echo, wire: Wire) -> None:
        request = KINDS["quick"][0]
        await wire.feed(request)
        await wire.feed(request + begun)  # the next head begins in the read that ends a request
        await wire.feed(request)
        await wire.settle()
        assert [body for _, body in wire.replies()][:2] == [b"qone3", b"qone3"]
        assert b"qone3" not in [body for _, body in wire.replies()][2:]

    run(test)


def test_what_continues_a_head_is_not_learnt() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        request = KINDS["quick"][0]
        await wire.feed(request + b"POST /predict HTTP/1.1\r\nx: ")
        await wire.feed(b"POST /other HTTP/1.1\r\ncontent-length: 3\r\n\r\none")
        await wire.settle()
        assert len(wire.connection.hub.heads) == 0

    run(test)
