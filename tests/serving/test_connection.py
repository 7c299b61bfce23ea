import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.serving.asgi import Headers, Receive, Scope, Send, send_json
from common.serving.connection import Connection
from common.serving.exchange import HIGH_WATER, Quick, Reply, Respond, Work
from common.serving.hub import HttpLimits, Hub


class Wire(asyncio.Transport):
    """A transport that keeps what is written; reading stops while it is paused."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.written = b""
        self.writes = 0
        self.reading = True
        self.closed = False
        connection.connection_made(self)

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data
        self.writes += 1

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1)

    async def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            for _ in range(200):
                if self.reading or self.closed:
                    break
                await asyncio.sleep(0)
            if self.closed:
                return
            self.connection.data_received(piece)

    async def settle(self) -> None:
        for _ in range(60):
            await asyncio.sleep(0)

    def replies(self) -> list[tuple[int, bytes]]:
        return replies(self.written)


class _Collector:
    def __init__(self) -> None:
        self.bodies: list[list[bytes]] = []
        self.statuses: list[int] = []

    def on_message_begin(self) -> None:
        self.bodies.append([])

    def on_body(self, body: bytes) -> None:
        self.bodies[-1].append(body)

    def on_headers_complete(self) -> None:
        self.statuses.append(self.parser.get_status_code())

    parser: Any


def replies(data: bytes) -> list[tuple[int, bytes]]:
    found = _Collector()
    found.parser = httptools.HttpResponseParser(found)
    found.parser.feed_data(data)
    return [(status, b"".join(body)) for status, body in zip(found.statuses, found.bodies, strict=True)]


class Waiting:
    """An answer that comes after two turns of the loop and when the gate is open."""

    def __init__(self, app: "Echo", answer: Callable[[], None]) -> None:
        self.app = app
        self.task = asyncio.ensure_future(self._later(answer))

    async def _later(self, answer: Callable[[], None]) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if self.app.gate is not None:
            await self.app.gate.wait()
        answer()

    def withdraw(self) -> None:
        self.app.withdrawn += 1
        self.task.cancel()


class Echo:
    """Answers with a letter and the body's first bytes: q for the quick route, a for the application."""

    def __init__(self) -> None:
        self.gate: asyncio.Event | None = None
        self.withdrawn = 0
        self.quick = {b"/predict": self.predict}

    def predict(self, headers: Headers, query: bytes) -> Quick:
        """A quick route; its work takes a few turns of the loop after `?wait`, and waits for the gate."""

        def begin(body: bytes, respond: Respond) -> Work | None:
            if query == b"bad":
                raise ZeroDivisionError
            reply = Reply(200, b"q" + body[:20] + b"%d" % len(body), "id")
            if query != b"wait" and self.gate is None:
                respond(reply)
                return None
            return Waiting(self, lambda: respond(reply))

        return begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.withdrawn += 1
                return
            body += message["body"]
            more = message["more_body"]
        if scope["path"] == "/streamed":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await send({"type": "http.response.body", "body": body[:20] + b"%d" % len(body)})
            return
        await send_json(send, 200, b"a" + body[:20] + b"%d" % len(body))


def post(path: bytes, body: bytes, *fields: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (
        path,
        b"".join(field + b"\r\n" for field in fields),
        len(body),
        body,
    )


def chunked(path: bytes, *chunks: bytes) -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"POST %b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % (path, framed)


BIG = bytes(HIGH_WATER + 7)
KINDS: dict[str, tuple[bytes, bytes]] = {  # request, body of its reply
    "quick": (post(b"/predict", b"one"), b"qone3"),
    "quick, waits": (post(b"/predict?wait", b"two"), b"qtwo3"),
    "quick, empty": (post(b"/predict", b""), b"q0"),
    "quick, chunked": (chunked(b"/predict", b"th", b"ree"), b"qthree5"),
    "too large to be quick": (post(b"/predict", BIG), b"a" + bytes(20) + b"%d" % len(BIG)),
    "too large in chunks": (chunked(b"/predict", BIG, b"x"), b"a" + bytes(20) + b"%d" % (len(BIG) + 1)),
    "get": (b"GET /predict HTTP/1.1\r\n\r\n", b"a0"),
    "other": (post(b"/other", b"four"), b"afour4"),
    "streamed": (post(b"/streamed", b"five"), b"afive4"),
}
SMALL = [name for name in KINDS if "large" not in name]


def run(test: Callable[[Echo, Wire], Awaitable[None]], limits: HttpLimits | None = None) -> None:
    async def inside() -> None:
        app = Echo()
        hub = Hub(app=app, quick=app.quick, limits=limits or HttpLimits())
        wire = Wire(Connection(hub))
        await test(app, wire)
        wire.close()
        await wire.settle()
        assert not hub.connections and not hub.tasks

    asyncio.run(inside())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=8), st.data())
def test_pipelined_requests_are_answered_in_order(kinds: list[str], data: st.DataObject) -> None:
    stream = b"".join(KINDS[kind][0] for kind in kinds)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b]

    async def test(app: Echo, wire: Wire) -> None:
        await wire.feed(*pieces)
        for _ in range(10):
            await wire.settle()
        assert wire.replies() == [(200, KINDS[kind][1]) for kind in kinds]
        assert not wire.closed and wire.reading

    run(test)


@pytest.mark.parametrize("kind", SMALL)
def test_a_request_may_be_cut_anywhere(kind: str) -> None:
    request, body = KINDS[kind]

    async def test(app: Echo, wire: Wire) -> None:
        for cut in range(1, len(request)):
            await wire.feed(request[:cut], request[cut:])
            await wire.settle()
        await wire.feed(*(request[i : i + 1] for i in range(len(request))))
        await wire.settle()
        assert wire.replies() == [(200, body)] * len(request)

    run(test)


def test_a_quick_answer_is_one_write_at_once() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        wire.connection.data_received(KINDS["quick"][0])
        assert wire.writes == 1 and not wire.connection.hub.tasks
        assert wire.written == (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\nx-request-id: id\r\n\r\nqone3"
        )

    run(test)


@pytest.mark.parametrize("kind", ["quick", "quick, waits", "other"])
@pytest.mark.parametrize("how", [b"connection: close", b"HTTP/1.0", b"connection: upgrade\r\nupgrade: h2c"])
def test_the_connection_ends_where_the_caller_says_so(kind: str, how: bytes) -> None:
    request, body = KINDS[kind]
    if how.startswith(b"HTTP"):
        request = request.replace(b"HTTP/1.1", how)
    else:
        request = request.replace(b"content-length", how + b"\r\ncontent-length")

    async def test(app: Echo, wire: Wire) -> None:
        await wire.feed(KINDS["quick"][0] + request + KINDS["quick"][0])
        await wire.settle()
        assert wire.closed and wire.replies() == [(200, b"qone3"), (200, body)]
        assert wire.written.count(b"connection: close") == 1

    run(test)


def test_this_is_no_proxy() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        await wire.feed(b"CONNECT a:80 HTTP/1.1\r\n\r\n")
        await wire.settle()
        assert [status for status, _ in wire.replies()] == [400] and wire.closed

    run(test)


def test_a_caller_that_expects_to_be_asked_is_asked() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        head, _, body = post(b"/predict", b"one", b"expect: 100-continue").partition(b"\r\n\r\n")
        await wire.feed(head + b"\r\n\r\n")
        await wire.settle()
        assert wire.written == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.feed(body)
        await wire.settle()
        assert wire.written.endswith(b"\r\n\r\naone3")

    run(test)


def test_what_is_not_http_is_refused_after_the_answers_that_are_due() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        await wire.feed(KINDS["quick, waits"][0] + KINDS["other"][0] + b"\x00\r\n\r\n" + KINDS["quick"][0])
        await wire.settle()
        assert [status for status, _ in wire.replies()] == [200, 200, 400] and wire.closed

    run(test)


def test_a_chunk_that_is_none_withdraws_its_request() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        await wire.feed(b"POST /other HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        await wire.settle()
        await wire.feed(b"zz\r\n")
        await wire.settle()
        assert [status for status, _ in wire.replies()] == [400] and wire.closed and app.withdrawn == 1

    run(test)


@pytest.mark.parametrize("kind", ["quick", "other"])
def test_a_caller_that_closes_its_side_is_answered(kind: str) -> None:
    async def test(app: Echo, wire: Wire) -> None:
        app.gate = asyncio.Event()
        await wire.feed(KINDS["quick"][0] + KINDS[kind][0] + KINDS["quick"][0][:-1])
        assert wire.connection.eof_received()
        app.gate.set()
        await wire.settle()
        assert wire.replies() == [(200, b"qone3"), (200, KINDS[kind][1])] and wire.closed
        assert wire.written.count(b"connection: close") == 1

    run(test)


def test_a_caller_that_closes_its_side_has_gone_after_a_while() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        app.gate = asyncio.Event()
        await wire.feed(KINDS["quick"][0])
        assert wire.connection.eof_received()
        wire.connection.sweep(wire.connection.due + 0.001)
        await wire.settle()
        assert wire.closed and app.withdrawn == 1 and wire.written == b""

    run(test)


@pytest.mark.parametrize("sent", [b"", b"POST /pred", KINDS["quick"][0][:-1], KINDS["other"][0][:-1]])
def test_half_a_request_is_not_waited_for(sent: bytes) -> None:
    async def test(app: Echo, wire: Wire) -> None:
        if sent:
            await wire.feed(sent)
        await wire.settle()
        assert not wire.connection.eof_received()

    run(test)


@pytest.mark.parametrize("kind", ["quick", "other"])
def test_a_caller_that_leaves_withdraws_all_its_requests(kind: str) -> None:
    async def test(app: Echo, wire: Wire) -> None:
        app.gate = asyncio.Event()
        await wire.feed(KINDS["quick"][0] + KINDS[kind][0], KINDS["other"][0][:-1])
        await wire.settle()
        wire.connection.connection_lost(ConnectionResetError())
        await wire.settle()
        assert app.withdrawn == 1 and wire.written == b"" and not wire.connection.busy

    run(test)


@pytest.mark.parametrize("before", [b"", KINDS["quick"][0]])
@pytest.mark.parametrize("fields", [[b"a: " + b"x" * 3000], [b"a: b"] * 300, [b"a" * 999] * 3])
def test_a_head_in_one_read_has_its_limits_too(before: bytes, fields: list[bytes]) -> None:
    async def test(app: Echo, wire: Wire) -> None:
        fields[:] = [field if b":" in field else field + b": b" for field in fields]
        await wire.feed(before + post(b"/predict", b"one", *fields) + KINDS["quick"][0])
        await wire.settle()
        assert [status for status, _ in wire.replies()] == [200] * bool(before) + [431] and wire.closed

    run(test, HttpLimits(head_bytes=2000))


def test_a_long_body_is_no_long_head() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        await wire.feed(post(b"/predict", bytes(5000)) + KINDS["get"][0])
        await wire.settle()
        assert [status for status, _ in wire.replies()] == [200, 200]

    run(test, HttpLimits(head_bytes=2000))


def test_a_caller_that_does_not_read_gets_no_further_answers() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        wire.connection.pause_writing()
        await wire.feed(KINDS["quick"][0] + KINDS["other"][0])
        await wire.settle()
        assert wire.written == b"" and not wire.reading
        wire.connection.resume_writing()
        await wire.settle()
        assert wire.replies() == [(200, b"qone3"), (200, b"afour4")] and wire.reading

    run(test)


def test_a_defect_of_the_quick_route_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async def test(app: Echo, wire: Wire) -> None:
        await wire.feed(post(b"/predict?bad", b"one"), KINDS["quick"][0])
        await wire.settle()
        assert [status for status, _ in wire.replies()] == [500, 200]

    run(test)
    assert "ZeroDivisionError" in caplog.text


def test_shutting_down_lets_what_has_begun_arrive_and_finish() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        request = KINDS["quick"][0]
        await wire.feed(KINDS["quick, waits"][0] + request[:-1])
        wire.connection.shutdown()
        await wire.feed(request[-1:] + request)
        await wire.settle()
        assert wire.replies() == [(200, b"qtwo3"), (200, b"qone3")] and wire.closed

    run(test)


def test_shutting_down_answers_a_request_that_was_on_its_way_over_an_idle_connection() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        request, body = KINDS["quick"]
        await wire.feed(request, request)
        wire.connection.shutdown()
        await wire.settle()
        assert not wire.closed
        await wire.feed(request)
        await wire.settle()
        assert wire.replies() == [(200, body)] * 3 and wire.closed
        assert wire.written.count(b"connection: close") == 1

    run(test)


def test_an_idle_connection_is_closed_in_the_end() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        wire.connection.shutdown()
        wire.connection.close_idle()
        assert wire.closed and not wire.written

    run(test)


def test_a_paused_connection_is_not_too_slow() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        app.gate = asyncio.Event()
        await wire.feed(KINDS["quick"][0] * 2 + b"POST /pre")
        wire.connection.sweep(float("inf"))
        assert not wire.closed and not wire.reading
        app.gate.set()
        await wire.settle()
        assert wire.reading and len(wire.replies()) == 2
        wire.connection.sweep(wire.connection.due + 0.001)
        assert [status for status, _ in wire.replies()][2:] == [408]

    run(test)


def test_an_idle_connection_is_closed_without_a_word() -> None:
    async def test(app: Echo, wire: Wire) -> None:
        await wire.feed(KINDS["quick"][0])
        wire.connection.sweep(wire.connection.due + 0.001)
        assert wire.closed and len(wire.replies()) == 1

    run(test)
