"""Unary calls to one upstream address, for networks whose proxies do not pass long streams.

Two to three times slower than the stream; a call that fails marks the address as down, and probes bring it back.
"""

from __future__ import annotations

import asyncio
import time

import grpc

from common.bundle import Bundle
from common.errors import DeadlineExceeded, RequestError, Unavailable
from common.limits import Limits
from common.serving.metrics import Metrics
from common.serving.status import error_from_grpc
from common.serving.upstream import Call
from common.wire.channels import DESCRIBE, INFER, REFUSAL_KEY, channel_options, framed_bytes
from common.wire.frames import request_bytes
from common.wire.messages import answer_from_wire
from protos import tier_pb2 as pb

PROBE_S = 0.25
SILENT_CALLS = 3


class UnaryLink:
    """One address behind unary `Infer` calls; arguments as for `StreamLink`."""

    def __init__(self, address: str, *, bundle: Bundle, limits: Limits, metrics: Metrics) -> None:
        self.address = address
        self.up = False
        self.rows_in_flight = 0
        self._bundle = bundle
        self._metrics = metrics
        self._channel = grpc.aio.insecure_channel(address, options=channel_options(limits.max_message_bytes))
        self._infer = self._channel.unary_unary(INFER, None, pb.InferReply.FromString)
        self._describe = self._channel.unary_unary(
            DESCRIBE, pb.DescribeRequest.SerializeToString, pb.DescribeReply.FromString
        )
        metrics.upstream_is(address, False)
        self._silent = 0  # calls in a row that got no answer
        self._calls: dict[Call, asyncio.Task[None]] = {}
        self._task = asyncio.get_running_loop().create_task(self._probe())

    def send(self, call: Call) -> None:
        """Call upstream once, in a task of its own."""
        if not self.up:
            call.ended(Unavailable(f"Upstream {self.address} is down."))
            return
        task = self._calls[call] = asyncio.get_running_loop().create_task(self._ask(call))
        task.add_done_callback(lambda _: self._calls.pop(call, None))

    def withdraw(self, call: Call) -> None:
        """Cancel the call, which mostly took too long."""
        task = self._calls.pop(call, None)
        if task is not None:
            task.cancel()
            self._in_vain()

    async def _ask(self, call: Call) -> None:
        request = call.request
        message = request_bytes(request, self._bundle.manifest.codes(request.start_stage))
        self._metrics.forwarded_bytes.inc(framed_bytes(len(message)))
        left = request.deadline.left()
        started = time.monotonic()
        self.rows_in_flight += len(request.rows)
        try:
            reply = await self._infer(message, timeout=None if left == float("inf") else max(left, 1e-3))
        except grpc.aio.AioRpcError as error:
            call.ended(self._error(error))
            return
        finally:
            self.rows_in_flight -= len(request.rows)
        seconds = time.monotonic() - started
        self._metrics.upstream_took(self.address, seconds)
        network_ms = max(seconds * 1e3 - reply.elapsed_us / 1e3, 0.0)
        self._silent = 0
        self._calls.pop(call, None)  # before the answers, which may end the call: there is nothing to withdraw
        call.answered([answer_from_wire(answer, network_ms) for answer in reply.answers])
        call.ended(None)

    def _error(self, error: grpc.aio.AioRpcError) -> RequestError:
        """What a failed call means: a refusal of the tier up there, or that it cannot be reached."""
        trailing = dict(error.trailing_metadata() or ())
        if REFUSAL_KEY in trailing:
            self._silent = 0
            return error_from_grpc(error.code(), error.details() or "", str(trailing[REFUSAL_KEY]))
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._in_vain()
            return DeadlineExceeded(f"Upstream {self.address} did not answer in time.")
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            self._set_up(False)
            return Unavailable(f"Upstream {self.address} cannot be reached.")
        return error_from_grpc(error.code(), f"Upstream {self.address} failed.")

    def _in_vain(self) -> None:
        """After several calls in a row without an answer the address counts as down, until a probe succeeds."""
        self._silent += 1
        if self._silent >= SILENT_CALLS:
            self._silent = 0
            self._set_up(False)

    async def close(self) -> None:
        """Close the channel; what is in flight fails."""
        calls = dict(self._calls)
        for task in (self._task, *calls.values()):
            task.cancel()
        await asyncio.gather(self._task, *calls.values(), return_exceptions=True)
        for call, task in calls.items():
            if task.cancelled():
                call.ended(Unavailable(f"Upstream {self.address} is no longer asked."))
        await self._channel.close()
        self._metrics.upstream_gone(self.address)

    async def _probe(self) -> None:
        """While the address is down, ask it to describe itself until it does."""
        while True:
            if not self.up:
                try:
                    await self._describe(pb.DescribeRequest(), timeout=1.0)
                except grpc.aio.AioRpcError:
                    pass
                else:
                    self._set_up(True)
            await asyncio.sleep(PROBE_S)

    def _set_up(self, up: bool) -> None:
        self.up = up
        self._metrics.upstream_is(self.address, up)
