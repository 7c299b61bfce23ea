"""One persistent stream to one upstream address, many requests in flight.

Whether upstream answers is judged here, by pings on the stream itself. An address is
up from its first pong until the stream breaks or stays silent too long, and again as soon as it speaks.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError

from common.address import parse_address
from common.bundle import Bundle
from common.errors import DeadlineExceeded, RequestError, Unavailable
from common.limits import Limits
from common.serving.bounds import bounds
from common.serving.introduction import doubts
from common.serving.metrics import Metrics
from common.serving.status import error_from_wire
from common.serving.upstream import Call
from common.wire.channels import DESCRIBE, INFER_STREAM, channel_options
from common.wire.frames import up_bytes
from common.wire.http2 import MessageStream
from common.wire.messages import answer_from_wire
from protos import tier_pb2 as pb

log = logging.getLogger(__name__)

PING_S = 0.25  # between looks; while upstream speaks of itself, nobody pings
SILENT_S = 1.0  # without a word after a ping, upstream counts as down
BROKEN_S = 4.0  # and after this long the stream is opened anew
RETRY_S = 0.1
STEADY_S = 1.0  # a stream that lived so long is opened anew at once: servers close connections that grow old
CONNECT_S = 4.0
INTRODUCTION_S = 10.0
_MOST_UNSENT = 4  # of the largest requests; whatever a tier may have in flight fits


@dataclass(slots=True)
class _Pending:
    """A call on the stream."""

    call: Call
    sent: float


class StreamLink:
    """A stream to one address; reconnects until closed.

    Args:
        address: host:port.
        bundle: names the cuts and their codecs.
        limits: message sizes.
        metrics: state, times and bytes are recorded here.
    """

    def __init__(self, address: str, *, bundle: Bundle, limits: Limits, metrics: Metrics) -> None:
        self.address = address
        self.up = False
        self.rows_in_flight = 0
        self._bundle = bundle
        self._metrics = metrics
        self._limits = limits
        self._most_unsent = _MOST_UNSENT * bounds(bundle.manifest, limits).message_bytes
        self._pending: dict[str, _Pending] = {}
        self._stream: MessageStream | None = None
        self._heard = 0.0
        self._pings = itertools.count(1)
        metrics.upstream_is(address, False)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def send(self, call: Call) -> None:
        """Put a call on the stream."""
        if not self.up:
            call.ended(Unavailable(f"Upstream {self.address} is down."))
            return
        if self._stream is not None and self._stream.unsent > self._most_unsent:
            call.ended(DeadlineExceeded(f"Upstream {self.address} does not take in time what it is sent."))
            return
        request = call.request
        message = up_bytes(request, self._bundle.manifest.codes(request.start_stage))
        self._pending[request.request_id] = _Pending(call, time.monotonic())
        self.rows_in_flight += len(request.rows)
        self._metrics.forwarded_bytes.inc(self._send(message))

    def withdraw(self, call: Call) -> None:
        """Tell upstream that nobody waits; an answer that comes all the same is late."""
        if self._forget(call.request.request_id) is not None:
            self._send(pb.Up(cancel=pb.Cancel(request_id=call.request.request_id)).SerializeToString())

    def _forget(self, request_id: str) -> _Pending | None:
        pending = self._pending.pop(request_id, None)
        if pending is not None:
            self.rows_in_flight -= len(pending.call.request.rows)
        return pending

    async def close(self) -> None:
        """Close the stream; what is in flight fails."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._metrics.upstream_gone(self.address)

    # ------------------------------------------------------------------ the stream's life

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._one_stream()
            except OSError as error:
                log.debug("no connection to %s: %s", self.address, error)
            except Exception:  # a stream that ended for whatever reason is opened anew
                log.exception("stream to %s failed", self.address)
            if time.monotonic() - began < STEADY_S:
                await asyncio.sleep(RETRY_S)

    async def _one_stream(self) -> None:
        """Open a stream and serve it until it breaks."""
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[Exception | None] = loop.create_future()
        stream = MessageStream(
            max_message_bytes=self._limits.max_message_bytes,
            received=self._message,
            lost=lambda error: None if lost.done() else lost.set_result(error),
        ).dial(path=INFER_STREAM, authority=self.address)
        address = parse_address(self.address)
        introduction: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(lambda: stream, address.host, address.port)
            self._stream = stream
            self._ping()
            introduction = loop.create_task(self._introduce())
            await self._watch(lost)
            self._set_up(False, lost.result() if lost.done() else None)
        finally:
            stream.close()
            self._stream = None
            if introduction is not None:
                introduction.cancel()
            self._set_up(False)
            self._fail_pending()

    async def _introduce(self) -> None:
        """Warn early of another bundle or a missing stage; correctness does not need it: requests say it all."""
        options = channel_options(self._limits.max_message_bytes)
        try:
            async with grpc.aio.insecure_channel(self.address, options=options) as channel:
                describe = channel.unary_unary(
                    DESCRIBE, pb.DescribeRequest.SerializeToString, pb.DescribeReply.FromString
                )
                reply = await describe(pb.DescribeRequest(), timeout=INTRODUCTION_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            log.debug("upstream %s does not describe itself: %s", self.address, error.details())
            return
        for doubt in doubts(self._bundle, reply):
            log.warning("upstream %s: %s, so it will refuse what is forwarded", self.address, doubt)

    async def _watch(self, lost: asyncio.Future[Exception | None]) -> None:
        """Ping until the connection is lost; mark a silent upstream as down, and return when it stays silent."""
        self._heard = time.monotonic()
        while not lost.done():
            await asyncio.wait((lost,), timeout=PING_S)
            silent = time.monotonic() - self._heard
            if silent > BROKEN_S:
                return
            if silent > SILENT_S and self.up:
                log.warning("upstream %s has been silent for %.1f s: marked down", self.address, silent)
                self._set_up(False)
            if silent > PING_S / 2 and self._stream is not None and not self._stream.unsent:
                self._ping()

    def _ping(self) -> None:
        self._send(pb.Up(ping=pb.Ping(id=next(self._pings))).SerializeToString())

    def _send(self, message: bytes) -> int:
        """Put a message on the stream; returns its bytes on the wire."""
        return 0 if self._stream is None else self._stream.send(message)

    def _set_up(self, up: bool, why: Exception | None = None) -> None:
        if up != self.up:
            log.info("upstream %s is %s%s", self.address, "up" if up else "down", "" if why is None else f": {why}")
        self.up = up
        self._metrics.upstream_is(self.address, up)

    def _fail_pending(self) -> None:
        for request_id in list(self._pending):
            self._end(request_id, Unavailable(f"The connection to upstream {self.address} broke."))

    def _end(self, request_id: str, error: RequestError | None) -> None:
        pending = self._forget(request_id)
        if pending is not None:
            pending.call.ended(error)

    # ------------------------------------------------------------------ what arrives

    def _message(self, data: bytes | bytearray) -> None:
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
            self._end(down.refusal.request_id, error_from_wire(down.refusal.status))

    def _reply(self, reply: pb.InferReply) -> None:
        pending = self._pending.get(reply.request_id)
        if pending is None:
            self._metrics.late.inc(len(reply.answers))
            return
        if reply.last:
            self._forget(
                reply.request_id
            )  # before the last answer, which may end the call: there is nothing to withdraw
        seconds = time.monotonic() - pending.sent
        network_ms = max(seconds * 1e3 - reply.elapsed_us / 1e3, 0.0)
        pending.call.answered([answer_from_wire(answer, network_ms) for answer in reply.answers])
        if reply.last:
            self._metrics.upstream_took(self.address, seconds)
            pending.call.ended(None)
