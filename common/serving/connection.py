"""One HTTP/1.1 connection: requests are parsed as they come, and answered one after the other, in their order.

Whatever a peer does, what it can hold is bounded: the time for a head and for a body, the size of a head, the
requests that wait behind the one that is served, and the bytes of a body that nobody has asked for yet.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

import httptools

from common.serving.asgi import Headers, error_body
from common.serving.exchange import AsgiExchange, Exchange, Quick, QuickExchange, Reply
from common.serving.hub import BODY, HEAD, IDLE, NEVER, Hub
from common.serving.parsing import http_parser, http_scope, without_upgrade


class Connection(asyncio.Protocol):
    """One connection. `due` is when it must have delivered what it is delivering."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.due = NEVER
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._parser = http_parser(self)
        self._writable = asyncio.Event()
        self._writable.set()
        # the request that arrives
        self._stage = HEAD  # how far the next request has arrived
        self._arriving: Exchange | None = None
        self._url = b""
        self._headers: Headers = []
        self._expects = False
        self._fed = 0  # bytes of the reads since its head began
        self._read = 0  # bytes of the last read
        self._paused = False
        # those that have arrived
        self._queue: deque[Exchange] = deque()  # the first is the one that is served
        self._serving = False
        self._deaf = False  # takes no further request
        self._ending = False  # closes after what it has taken
        self._last_words = b""  # after the last answer

    # ------------------------------------------------------------------ for the server
    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return bool(self._queue) or self._arriving is not None

    @property
    def closing(self) -> bool:
        """Whether it only has to send what it still holds."""
        return self._transport.is_closing()

    def shutdown(self) -> None:
        """Close after the requests that are under way; where there is none, after the next."""
        self._ending = True
        self._deaf = self._deaf or (self.busy and self._arriving is None)

    def close_idle(self) -> None:
        """Close, unless a request is under way."""
        if not self.busy:
            self._deaf = True
            self._transport.close()

    def cut_short(self) -> None:
        """End the quick request that is served: the server does not wait any longer."""
        if self._serving and isinstance(self._queue[0], QuickExchange):
            self._queue[0].cut_short()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def sweep(self, now: float) -> None:
        """Close a connection that has taken too long, with a word where no response has begun."""
        if self.due >= now or self._paused:
            return
        self.due = NEVER
        if self._deaf:  # its caller has closed its side, and probably gone
            self.abort()
        elif self._stage is IDLE:
            self._transport.close()
        else:
            self._refuse(408, "timeout", "The request did not arrive in time.")

    # ------------------------------------------------------------------ for exchanges
    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._transport.write(data)

    async def writable(self) -> None:
        """Wait until the caller has read most of what was sent."""
        await self._writable.wait()

    def is_last(self, exchange: Exchange) -> bool:
        """Whether the connection closes after this exchange."""
        return self._ending and self._queue[-1] is exchange and self._arriving in (None, exchange)

    def finished(self, exchange: Exchange) -> None:
        """The response of the exchange that is served has been written."""
        self._queue.popleft()
        self._serving = False
        if not exchange.keep_alive:
            self._close()
        elif self._queue:
            asyncio.get_running_loop().call_soon(self._serve)  # others have their turn before
        elif self._last_words:
            self.write(self._last_words)
            self._close()
        elif self._ending and self._arriving is None:
            self._close()
        elif self._stage is IDLE:
            self.due = time.monotonic() + self.hub.limits.idle_s
        if self._paused:
            self.pace()

    def pace(self) -> None:
        """Read on, or let the caller wait."""
        arriving = self._arriving
        full = len(self._queue) > 1 or (isinstance(arriving, AsgiExchange) and arriving.full)
        if full == self._paused or self._transport.is_closing():
            return
        self._paused = full
        if full:
            self._transport.pause_reading()
            return
        self._transport.resume_reading()
        if self._stage is not IDLE:
            limits = self.hub.limits
            self.due = time.monotonic() + (limits.head_s if self._stage is HEAD else limits.body_s)

    # ------------------------------------------------------------------ for the event loop
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller has connected."""
        self._transport = transport
        hub = self.hub
        hub.connections.add(self)
        self.due = time.monotonic() + hub.limits.head_s
        if len(hub.connections) > hub.limits.connections:
            self._refuse(503, "overloaded", "Too many connections are open: retry later.")

    def data_received(self, data: bytes) -> None:
        """Parse, and serve what is whole."""
        if self._deaf:
            return
        fresh = self._stage is IDLE or (self._stage is HEAD and not self._fed)  # a request begins
        if fresh and (known := self.hub.heads.find(data)):
            self._known(*known)
            return
        limits = self.hub.limits
        if self._stage is IDLE:
            self._stage = HEAD
            self.due = time.monotonic() + limits.head_s
        self._read = len(data)
        if self._stage is HEAD:
            self._fed += self._read
        self._feed(data)
        if fresh and self._stage is IDLE:
            self._learn(data)
        if self._stage is HEAD and self._fed > limits.head_bytes:
            self._refuse(431, "too_large", f"The request's head is longer than {limits.head_bytes} bytes.")
        self._serve()
        if len(self._queue) > 1 or self._arriving is not None:
            self.pace()

    def eof_received(self) -> bool:
        """The caller has closed its side: answer what is whole, for as long as it may still listen."""
        self._deaf = self._ending = True
        self._give_up_arriving()
        if self._queue:
            self.due = time.monotonic() + self.hub.limits.half_closed_s
        return bool(self._queue)

    def connection_lost(self, error: Exception | None) -> None:
        """The caller has gone: everything under way is withdrawn."""
        self.hub.connections.discard(self)
        self._deaf = True
        self.due = NEVER
        for exchange in self._queue:
            exchange.leave()
        self._queue.clear()
        self._arriving = None
        self._parser = None  # type: ignore[assignment] # it holds this connection
        self._writable.set()

    def pause_writing(self) -> None:
        """The caller does not read what is sent."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has read most of it."""
        self._writable.set()
        self._serve()

    # ------------------------------------------------------------------ for the parser
    def on_message_begin(self) -> None:
        """A request begins."""
        self._url = b""
        self._headers = []
        self._expects = False
        if self._stage is not HEAD:
            self._stage = HEAD
            self._fed = 1  # in the same read as what went before: whatever comes next continues this head
            self.due = time.monotonic() + self.hub.limits.head_s

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or of a chunked body's trailer."""
        name = name.lower()
        if name == b"expect":
            self._expects = value.lower() == b"100-continue"
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there."""
        if self._deaf or self._parser.should_upgrade():
            return
        limits, headers = self.hub.limits, self._headers
        if max(self._fed, self._read) > limits.head_bytes or len(headers) > limits.head_fields:
            size = len(self._url) + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > limits.head_bytes or len(headers) > limits.head_fields:
                most = f"{limits.head_bytes} bytes or {limits.head_fields} fields"
                self._refuse(431, "too_large", f"The request's head is longer than {most}.")
                return
        path, _, query = self._url.partition(b"?")
        route = None if b"#" in query else self.hub.quick.get(path)  # the application cuts a fragment off
        quick = None
        if route is not None and not self._expects and self._parser.get_method() == b"POST":
            quick = route(headers, query)
        if quick is None:
            self._arriving = self._asgi()
        else:
            self._arriving = QuickExchange(self, quick, headers, keep_alive=self._keeps_alive())
        self._stage = BODY
        self.due = time.monotonic() + limits.body_s

    def on_body(self, chunk: bytes) -> None:
        """A piece of the body."""
        arriving = self._arriving
        if arriving is None or arriving.take(chunk):
            return
        assert isinstance(arriving, QuickExchange)  # too large to be quick
        self._arriving = self._asgi()
        self._arriving.take(arriving.body)

    def on_message_complete(self) -> None:
        """The request is there."""
        arriving, self._arriving = self._arriving, None
        if arriving is None:
            return
        self._stage = IDLE
        self._fed = 0
        self.due = NEVER
        if not arriving.keep_alive or self._ending:
            self._deaf = True
        if isinstance(arriving, QuickExchange):
            self._queue.append(arriving)
            return
        arriving.complete()
        if not self._queue:  # answered before the end of its body
            if self._ending:
                self._close()
            else:
                self.due = time.monotonic() + self.hub.limits.idle_s

    # ------------------------------------------------------------------ inside
    def _known(self, quick: Quick, body: bytes) -> None:
        """Serve a whole request whose head has been parsed before."""
        self._stage = IDLE
        self.due = NEVER
        self._deaf = self._ending
        self._queue.append(QuickExchange(self, quick, [], keep_alive=True, body=body))
        self._serve()
        if len(self._queue) > 1:
            self.pace()

    def _learn(self, data: bytes) -> None:
        """Know the head again that the whole of `data` began with."""
        last = self._queue[-1] if self._queue else None
        if isinstance(last, QuickExchange) and last.keep_alive:
            self.hub.heads.learn(data, last.quick, last.headers, len(last.body))

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, "bad_http", "The request is not valid HTTP/1.1.")

    def _decline(self, rest: bytes) -> None:
        """Parse a request again without its wish for another protocol, of which there is none here."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._refuse(400, "bad_http", "This is no proxy.")
            return
        head = without_upgrade(method, self._url, self._headers)
        self._parser = http_parser(self)
        self._feed(head + rest)

    def _serve(self) -> None:
        """Start the first of the queue, unless it is being served or what went before is not sent yet."""
        if self._queue and not self._serving and self._writable.is_set():
            self._serving = True
            self._queue[0].start()

    def _keeps_alive(self) -> bool:
        parser = self._parser
        keeps: bool = parser.should_keep_alive() and parser.get_http_version() == "1.1"
        return keeps

    def _asgi(self) -> AsgiExchange:
        """The request whose head is there, for the application; it may be served before its body is there."""
        scope = http_scope(self._parser, self._url, self._headers, self._transport)
        exchange = AsgiExchange(self, scope, keep_alive=self._keeps_alive(), expects=self._expects)
        self._queue.append(exchange)
        return exchange

    def _give_up_arriving(self) -> bool:
        """Forget the request that will not arrive; false when its response has begun, and can only be cut off."""
        arriving, self._arriving = self._arriving, None
        if not isinstance(arriving, AsgiExchange) or arriving.over:
            return True
        if arriving.started:
            self.abort()
            return False
        arriving.leave()
        if self._queue[0] is arriving:
            self._serving = False
        self._queue.remove(arriving)
        return True

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Say what is wrong after the answers that are due, and close."""
        if self._deaf or not self._give_up_arriving():
            return
        self._deaf = True
        self.due = NEVER
        self._last_words = Reply(status, error_body(code, message)).to_wire(close=True)
        if not self._queue:
            self.write(self._last_words)
            self._close()

    def _close(self) -> None:
        """Close once everything is sent, which must not take for ever."""
        self._deaf = True
        self.due = time.monotonic() + self.hub.limits.body_s
        self._transport.close()
