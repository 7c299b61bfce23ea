"""One connection to upstream: the stream on it, what is in flight there, and whether the other end speaks.

A line is up from upstream's first word until the connection breaks or stays silent too long, and again as soon as
upstream speaks. Once upstream has said that it will close the connection, the line is left: others carry what is new,
and it ends with what is in flight on it (RFC 9113, 6.8).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from common.address import parse_address
from common.serving.metrics import Metrics
from common.serving.status import error_from_wire
from common.serving.upstream import Call
from common.wire.channels import INFER_STREAM
from common.wire.http2 import MessageStream
from common.wire.messages import answer_from_wire
from protos import tier_pb2 as pb

log = logging.getLogger(__name__)

PING_S = 0.25  # between looks; while upstream speaks of itself, nobody pings
SILENT_S = 1.0  # without a word after a ping, upstream counts as down
BROKEN_S = 4.0  # and after this long the line is given up
CONNECT_S = 4.0


@dataclass(slots=True)
class _Pending:
    """A call on the stream."""

    call: Call
    sent: float


class Line:
    """A stream with a connection to itself.

    Args:
        address: host:port.
        max_message_bytes: of what upstream sends.
        metrics: times and late answers are recorded here.
        changed: called when the line has come up or gone down.
    """

    def __init__(self, address: str, *, max_message_bytes: int, metrics: Metrics, changed: Callable[[], None]) -> None:
        self.address = address
        self.up = False
        self.leaving = False  # upstream will close the connection
        self.left = asyncio.Event()  # that, or it has ended: time for another line
        self.rows_in_flight = 0
        self._metrics = metrics
        self._changed = changed
        self._pending: dict[str, _Pending] = {}
        self._heard = 0.0
        self._pings = itertools.count(1)
        self._lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._stream = MessageStream(
            max_message_bytes=max_message_bytes,
            received=self.take,
            lost=lambda error: None if self._lost.done() else self._lost.set_result(error),
            leaving=self._leave,
        ).dial(path=INFER_STREAM, authority=address)

    # ------------------------------------------------------------------ its life

    async def connect(self) -> None:
        """Connect and say a first word; raises OSError."""
        address = parse_address(self.address)
        async with asyncio.timeout(CONNECT_S):
            await asyncio.get_running_loop().create_connection(lambda: self._stream, address.host, address.port)
        self._ping()

    async def watch(self, needed: Callable[[], bool]) -> Exception | None:
        """Ping until the connection is lost, stays silent, or is left and neither needed nor in use any more.

        A silent line is marked as down. Returns why the connection was lost, where that is known.
        """
        self._heard = time.monotonic()
        while not self._lost.done():
            await asyncio.wait((self._lost,), timeout=PING_S)
            silent = time.monotonic() - self._heard
            if silent > BROKEN_S or (self.leaving and not self._pending and not needed()):
                return None
            if silent > SILENT_S and self.up:
                log.warning("upstream %s has been silent for %.1f s: marked down", self.address, silent)
                self._set_up(False)
            if silent > PING_S / 2 and not self._stream.unsent:
                self._ping()
        return self._lost.result()

    def end(self) -> list[Call]:
        """Close the connection for good; returns the calls that were in flight."""
        self._stream.close()
        del self._stream  # it knows this line: together they would stay until a collection, at every failed attempt
        self._set_up(False)
        calls = [pending.call for pending in self._pending.values()]
        self._pending.clear()
        self.rows_in_flight = 0
        self.left.set()
        return calls

    def _leave(self) -> None:
        if not self.leaving:
            log.info("upstream %s is going to close the connection: another one follows", self.address)
        self.leaving = True
        self.left.set()

    def _set_up(self, up: bool) -> None:
        if up != self.up:
            self.up = up
            self._changed()

    # ------------------------------------------------------------------ what is sent

    @property
    def unsent(self) -> int:
        """Bytes of what was sent that upstream has not taken."""
        return self._stream.unsent

    def send(self, call: Call, message: bytes) -> int:
        """Put a call on the stream; returns the bytes of its message on the wire."""
        request = call.request
        self._pending[request.request_id] = _Pending(call, time.monotonic())
        self.rows_in_flight += len(request.rows)
        return self._stream.send(message)

    def withdraw(self, request_id: str) -> None:
        """Tell upstream that nobody waits, if the call is on this line; an answer that comes all the same is late."""
        if self._forget(request_id) is not None:
            self._stream.send(pb.Up(cancel=pb.Cancel(request_id=request_id)).SerializeToString())

    def _forget(self, request_id: str) -> _Pending | None:
        pending = self._pending.pop(request_id, None)
        if pending is not None:
            self.rows_in_flight -= len(pending.call.request.rows)
        return pending

    def _ping(self) -> None:
        self._stream.send(pb.Up(ping=pb.Ping(id=next(self._pings))).SerializeToString())

    # ------------------------------------------------------------------ what arrives

    def take(self, data: bytes | bytearray) -> None:
        """Take a serialised message of upstream's; one that cannot be parsed is a word from there all the same."""
        self._heard = time.monotonic()
        if not self.up:
            self._set_up(True)
        try:
            down = pb.Down.FromString(bytes(data))
        except DecodeError:
            log.warning("upstream %s sends what is no %s", self.address, pb.Down.DESCRIPTOR.full_name)
        else:
            self._receive(down)

    def _receive(self, down: pb.Down) -> None:
        kind = down.WhichOneof("message")
        if kind == "reply":
            self._reply(down.reply)
        elif kind == "refusal":
            pending = self._forget(down.refusal.request_id)
            if pending is not None:
                pending.call.ended(error_from_wire(down.refusal.status))

    def _reply(self, reply: pb.InferReply) -> None:
        pending = self._pending.get(reply.request_id)
        if pending is None:
            self._metrics.late.inc(len(reply.answers))
            return
        if reply.last:  # forgotten before the last answer, which may end the call: there is nothing to withdraw
            self._forget(reply.request_id)
        seconds = time.monotonic() - pending.sent
        network_ms = max(seconds * 1e3 - reply.elapsed_us / 1e3, 0.0)
        pending.call.answered([answer_from_wire(answer, network_ms) for answer in reply.answers])
        if reply.last:
            self._metrics.upstream_took(self.address, seconds)
            pending.call.ended(None)
