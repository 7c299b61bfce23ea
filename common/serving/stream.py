"""One persistent stream to one upstream address, many requests in flight.

gRPC only reconnects; whether upstream answers is judged here, by pings on the stream itself. An address is
up from its first pong until the stream breaks or stays silent too long, and again as soon as it speaks.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from dataclasses import dataclass

import grpc

from common.bundle import Bundle
from common.errors import RequestError, Unavailable
from common.limits import Limits
from common.serving.introduction import doubts
from common.serving.metrics import Metrics
from common.serving.status import error_from_wire
from common.serving.upstream import Call
from common.wire.channels import DESCRIBE, INFER_STREAM, channel_options, framed_bytes
from common.wire.frames import up_bytes
from common.wire.messages import answer_from_wire
from protos import tier_pb2 as pb

log = logging.getLogger(__name__)

PING_S = 0.25
SILENT_S = 1.0  # without a word after a ping, upstream counts as down
BROKEN_S = 4.0  # and after this long the stream is opened anew
RETRY_S = 0.1


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
        self._pending: dict[str, _Pending] = {}
        self._outbox: deque[bytes] = deque()
        self._outbox_filled = asyncio.Event()
        self._heard = 0.0
        self._pings = itertools.count(1)
        self._channel = grpc.aio.insecure_channel(address, options=channel_options(limits.max_message_bytes))
        self._open = self._channel.stream_stream(
            INFER_STREAM,
            request_serializer=None,  # messages are put on the stream as bytes
            response_deserializer=pb.Down.FromString,
        )
        self._describe = self._channel.unary_unary(
            DESCRIBE, pb.DescribeRequest.SerializeToString, pb.DescribeReply.FromString
        )
        metrics.upstream_is(address, False)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def send(self, call: Call) -> None:
        """Put a call on the stream."""
        if not self.up:
            call.ended(Unavailable(f"Upstream {self.address} is down."))
            return
        request = call.request
        message = up_bytes(request, self._bundle.manifest.codes(request.start_stage))
        self._pending[request.request_id] = _Pending(call, time.monotonic())
        self.rows_in_flight += len(request.rows)
        self._send(message)
        self._metrics.forwarded_bytes.inc(framed_bytes(len(message)))

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
        await self._channel.close()
        self._metrics.upstream_gone(self.address)

    # ------------------------------------------------------------------ the stream's life

    async def _run(self) -> None:
        while True:
            try:
                await self._one_stream()
            except grpc.aio.AioRpcError as error:
                log.debug("stream to %s ended: %s", self.address, error.details())
            except Exception:  # a stream that ended for whatever reason is opened anew
                log.exception("stream to %s failed", self.address)
            await asyncio.sleep(RETRY_S)

    async def _one_stream(self) -> None:
        """Open a stream and serve it until it breaks."""
        call = self._open(wait_for_ready=True)
        self._outbox.clear()
        self._ping()
        tasks = [
            asyncio.create_task(self._write(call)),
            asyncio.create_task(self._read(call)),
            asyncio.create_task(self._watch()),
        ]
        introduction = asyncio.create_task(self._introduce())
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            call.cancel()
            for task in (*tasks, introduction):
                task.cancel()
            await asyncio.gather(*tasks, introduction, return_exceptions=True)
            self._set_up(False)
            self._fail_pending()

    async def _write(self, call: grpc.aio.StreamStreamCall) -> None:
        while True:
            await self._outbox_filled.wait()
            while self._outbox:
                await call.write(self._outbox.popleft())
            self._outbox_filled.clear()

    async def _read(self, call: grpc.aio.StreamStreamCall) -> None:
        while True:
            down = await call.read()
            if down is grpc.aio.EOF:
                return
            self._heard = time.monotonic()
            if not self.up:
                self._set_up(True)
            self._receive(down)

    async def _introduce(self) -> None:
        """Warn early of another bundle or a missing stage; correctness does not need it: requests say it all."""
        reply = await self._describe(pb.DescribeRequest(), wait_for_ready=True)
        for doubt in doubts(self._bundle, reply):
            log.warning("upstream %s: %s, so it will refuse what is forwarded", self.address, doubt)

    async def _watch(self) -> None:
        """Ping; mark a silent upstream as down, and end the stream when it stays silent."""
        self._heard = float("inf")  # until the connection stands, gRPC's own back-off is the clock
        while True:
            await asyncio.sleep(PING_S)
            silent = time.monotonic() - self._heard
            if silent > BROKEN_S:
                return
            if silent > SILENT_S and self.up:
                log.warning("upstream %s has been silent for %.1f s: marked down", self.address, silent)
                self._set_up(False)
            if not self._outbox:
                self._ping()

    def _ping(self) -> None:
        self._send(pb.Up(ping=pb.Ping(id=next(self._pings))).SerializeToString())

    def _send(self, message: bytes) -> None:
        self._outbox.append(message)
        self._outbox_filled.set()

    def _set_up(self, up: bool) -> None:
        if up != self.up:
            log.info("upstream %s is %s", self.address, "up" if up else "down")
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
        pending.call.answered([answer_from_wire(answer).over(network_ms) for answer in reply.answers])
        if reply.last:
            self._metrics.upstream_took(self.address, seconds)
            pending.call.ended(None)
