"""The methods of `offramp.v1.Tier`. They convert and do nothing else.

Messages arrive as bytes and are parsed here, so that one that cannot be parsed is refused like any other bad
input, and ends neither the call's stream nor what else is in flight on it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from common.errors import Malformed, Overloaded, RequestError, Unavailable
from common.limits import Limits
from common.serving.admission import admit
from common.serving.core import Core, Withdrawable
from common.serving.status import error_to_wire, grpc_status
from common.serving.upstream import Deliver, Ended
from common.types import Answer, Deadline, Request, Rows
from common.wire.channels import REFUSAL_KEY, SERVICE
from common.wire.messages import answer_to_wire, request_from_wire
from protos import tier_pb2 as pb

log = logging.getLogger(__name__)

UNREAD_S = 0.01  # between looks at a caller that sends without reading its replies

M = TypeVar("M", bound=Message)


class TierService:
    """The service in front of a tier.

    Args:
        core: the tier.
        describe: what `Describe` replies.
    """

    def __init__(self, core: Core, describe: pb.DescribeReply) -> None:
        self._core = core
        self._describe = describe
        self.draining = False

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server registers."""
        methods = {
            "Infer": grpc.unary_unary_rpc_method_handler(self.infer, None, pb.InferReply.SerializeToString),
            "InferStream": grpc.stream_stream_rpc_method_handler(self.infer_stream, None, pb.Down.SerializeToString),
            "Describe": grpc.unary_unary_rpc_method_handler(self.describe, None, pb.DescribeReply.SerializeToString),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def describe(self, request: bytes, context: grpc.aio.ServicerContext) -> pb.DescribeReply:
        """Say what this tier holds."""
        return self._describe

    async def infer(self, data: bytes, context: grpc.aio.ServicerContext) -> pb.InferReply:
        """One request, one reply with all answers; a refusal becomes the call's status."""
        left = context.time_remaining()
        outcome = await self._outcome(data, None if left is None else Deadline.after(left))
        del data  # an aborted call's frame lives until a collection; its message must not
        if isinstance(outcome, pb.InferReply):
            return outcome
        self.refused(outcome.code)
        context.set_trailing_metadata(((REFUSAL_KEY, outcome.code),))
        await context.abort(grpc_status(outcome), str(outcome))
        raise AssertionError("abort does not return")

    async def _outcome(self, data: bytes, deadline: Deadline | None) -> pb.InferReply | RequestError:
        """The reply, or why there is none, stripped of the frames that it came through."""
        started = time.monotonic()
        answers: list[Answer] = []
        try:
            message = _parsed(pb.InferRequest, data)
            if self.draining:
                raise Unavailable("This tier is shutting down.", "draining")
            await self._core.answer(self._admitted(message, deadline), answers.extend)
        except RequestError as error:
            error.__context__ = None
            return error.with_traceback(None)
        return _reply(message.request_id, answers, started, last=True)

    async def infer_stream(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.Down]:
        """Many requests in flight; each ends with a last reply or a refusal."""
        stream = _Stream(self, self._core.limits)
        reader = asyncio.create_task(stream.read(requests))
        try:
            while (down := await stream.out.get()) is not None:
                yield down
        finally:
            reader.cancel()
            stream.withdraw_all()

    def submit(self, message: pb.InferRequest, deliver: Deliver, ended: Ended) -> Withdrawable:
        """Admit a request and have the tier begin to answer it; raises RequestError."""
        if self.draining:
            raise Unavailable("This tier is shutting down.", "draining")
        return self._core.submit(self._admitted(message, None), deliver, ended)

    def refused(self, code: str) -> None:
        """Count a refusal."""
        self._core.refused(code)

    def _admitted(self, message: pb.InferRequest, deadline: Deadline | None) -> Request:
        limits = self._core.limits
        request = request_from_wire(message, limits)
        manifest = self._core.bundle.manifest
        if request.bundle == self._core.bundle.digest and request.start_stage < len(manifest.stages):
            # With another bundle or stage the tier refuses the request before it looks at tensors.
            tensors = admit(manifest, request.start_stage, request.rows.tensors, limits)
            _check_rows(request.rows, len(next(iter(tensors.values()))))
            for name in request.rows.state.keys() & manifest.tensors.keys():
                raise Malformed(f"state {name!r} has the name of a tensor of the bundle.", "bad_state")
        else:
            tensors = request.rows.tensors
        if deadline is not None and deadline.at > request.deadline.at:
            deadline = request.deadline
        return Request(
            request_id=request.request_id,
            rows=Rows(ids=request.rows.ids, tensors=tensors, state=request.rows.state),
            bundle=request.bundle,
            operating_point=request.operating_point,
            start_stage=request.start_stage,
            thresholds=request.thresholds,
            deadline=deadline or request.deadline,
            want_probabilities=request.want_probabilities,
            purpose=request.purpose,
            traceparent=request.traceparent,
        )


class _Stream:
    """One caller's stream: its requests under way, and one queue of messages down."""

    def __init__(self, service: TierService, limits: Limits) -> None:
        self.out: asyncio.Queue[pb.Down | None] = asyncio.Queue()
        self._service = service
        self._limits = limits
        self._calls: dict[str, _Served] = {}
        self._idle = asyncio.Event()

    async def read(self, requests: AsyncIterator[bytes]) -> None:
        """Take messages until the caller closes its side, then wait for what is in flight."""
        try:
            async for data in requests:
                while self.out.qsize() >= self._limits.stream_requests:
                    await asyncio.sleep(UNREAD_S)
                try:
                    self._take(_parsed(pb.Up, data))
                except Malformed as error:
                    self._service.refused(error.code)
                    self.refuse("", error)
            while self._calls:
                self._idle.clear()
                await self._idle.wait()
        finally:
            self.out.put_nowait(None)

    def withdraw_all(self) -> None:
        """Withdraw what is in flight: the caller is gone."""
        for call in list(self._calls.values()):
            call.withdraw()

    def over(self, call: _Served) -> None:
        """A request has come to its end."""
        if self._calls.get(call.name) is call:  # else it was cancelled, and the id may be in use again
            del self._calls[call.name]
        if not self._calls:
            self._idle.set()

    def refused(self, code: str) -> None:
        """Count a refusal."""
        self._service.refused(code)

    def refuse(self, request_id: str, error: RequestError) -> None:
        """Say that a request gets no (further) answers."""
        self.out.put_nowait(pb.Down(refusal=pb.Refusal(request_id=request_id, status=error_to_wire(error))))

    def _take(self, up: pb.Up) -> None:
        kind = up.WhichOneof("message")
        if kind == "request":
            self._begin(up.request)
        elif kind == "cancel":
            call = self._calls.pop(up.cancel.request_id, None)
            if call is not None:
                call.withdraw()
        elif kind == "ping":
            self.out.put_nowait(pb.Down(pong=pb.Pong(id=up.ping.id)))

    def _begin(self, message: pb.InferRequest) -> None:
        name = message.request_id
        call = _Served(self, name, len(message.row_ids))
        try:
            if name in self._calls:
                raise Malformed(f"request_id {name[:80]!r} is in flight on this stream.", "duplicate_request")
            if len(self._calls) >= self._limits.stream_requests:
                raise Overloaded(f"{len(self._calls)} requests are in flight on this stream: retry later.")
            job = self._service.submit(message, call.deliver, call.ended)
        except RequestError as error:
            self._service.refused(error.code)
            self.refuse(name, error)
        except Exception:
            log.exception("request %s failed", name[:80])
            self.refuse(name, RequestError("The request failed on this tier.", "internal"))
        else:
            if not job.over:
                call.job = job
                self._calls[name] = call


class _Served:
    """One request on a stream."""

    __slots__ = ("_started", "_stream", "_waiting", "job", "name")

    def __init__(self, stream: _Stream, name: str, rows: int) -> None:
        self._stream = stream
        self._started = time.monotonic()
        self._waiting = rows
        self.name = name
        self.job: Withdrawable | None = None

    def deliver(self, answers: Sequence[Answer]) -> None:
        """Send some answers down."""
        self._waiting -= len(answers)
        reply = _reply(self.name, answers, self._started, last=self._waiting == 0)
        self._stream.out.put_nowait(pb.Down(reply=reply))

    def ended(self, error: RequestError | None) -> None:
        """Nothing more will come."""
        self._stream.over(self)
        if error is not None:
            self._stream.refused(error.code)
            self._stream.refuse(self.name, error)

    def withdraw(self) -> None:
        """The caller does not wait any more."""
        if self.job is not None:
            self.job.withdraw()


def _check_rows(rows: Rows, count: int) -> None:
    if len(rows.ids) != count:
        raise Malformed(f"row_ids has {len(rows.ids)} entries. The tensors have {count} rows.", "bad_rows")
    if len(set(rows.ids)) != count:
        raise Malformed("row_ids holds an id twice.", "bad_rows")
    for name, tensor in rows.state.items():
        if tensor.ndim == 0 or len(tensor) != count:
            raise Malformed(f"state {name!r} has shape {list(tensor.shape)}. It must have {count} rows.", "bad_shape")


def _reply(request_id: str, answers: Sequence[Answer], started: float, *, last: bool) -> pb.InferReply:
    return pb.InferReply(
        request_id=request_id,
        answers=[answer_to_wire(answer) for answer in answers],
        last=last,
        elapsed_us=int((time.monotonic() - started) * 1e6),
    )


def _parsed(kind: type[M], data: bytes) -> M:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise Malformed(f"The message is not an {kind.DESCRIPTOR.full_name}.", "bad_message") from None
