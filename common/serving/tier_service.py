"""The methods of `offramp.v1.Tier` for callers that use gRPC's library. They convert and do nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import grpc

from common.errors import Malformed, RequestError, Unavailable
from common.limits import Limits
from common.serving.admission import admit
from common.serving.core import Core, Withdrawable
from common.serving.served import ServedStream, parsed
from common.serving.status import grpc_status
from common.serving.upstream import Deliver, Ended
from common.types import Answer, Deadline, Request, Rows
from common.wire.channels import REFUSAL_KEY, SERVICE
from common.wire.messages import answer_to_wire, request_from_wire
from common.wire.reading import RequestRead
from protos import tier_pb2 as pb

UNREAD_S = 0.01  # between looks at a caller that sends without reading its replies


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
            "InferStream": grpc.stream_stream_rpc_method_handler(self.infer_stream),
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
            message = parsed(pb.InferRequest, data)
            if self.draining:
                raise Unavailable("This tier is shutting down.", "draining")
            await self._core.answer(self._admitted(message, deadline), answers.extend)
        except RequestError as error:
            error.__context__ = None
            return error.with_traceback(None)
        return _reply(message.request_id, answers, started, last=True)

    async def infer_stream(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        """Many requests in flight; each ends with a last reply or a refusal."""
        out: asyncio.Queue[bytes | None] = asyncio.Queue()
        stream = ServedStream(self, out.put_nowait)
        reader = asyncio.create_task(self._read(requests, stream, out))
        try:
            while (down := await out.get()) is not None:
                yield down
        finally:
            reader.cancel()
            stream.withdraw_all()

    async def _read(
        self, requests: AsyncIterator[bytes], stream: ServedStream, out: asyncio.Queue[bytes | None]
    ) -> None:
        """Take messages until the caller closes its side, then wait for what is in flight."""
        try:
            async for data in requests:
                while out.qsize() >= self.limits.stream_requests:
                    await asyncio.sleep(UNREAD_S)
                stream.take(data)
            await stream.idle()
        finally:
            out.put_nowait(None)

    @property
    def limits(self) -> Limits:
        """What a caller may ask for."""
        return self._core.limits

    def submit(self, message: pb.InferRequest | RequestRead, deliver: Deliver, ended: Ended) -> Withdrawable:
        """Admit a request and have the tier begin to answer it; raises RequestError."""
        if self.draining:
            raise Unavailable("This tier is shutting down.", "draining")
        return self._core.submit(self._admitted(message, None), deliver, ended)

    def refused(self, code: str) -> None:
        """Count a refusal."""
        self._core.refused(code)

    def _admitted(self, message: pb.InferRequest | RequestRead, deadline: Deadline | None) -> Request:
        limits = self._core.limits
        request = request_from_wire(message, limits)
        manifest = self._core.bundle.manifest
        if request.bundle == self._core.bundle.digest and request.start_stage < len(manifest.stages):
            # With another bundle or stage the tier refuses the request before it looks at tensors.
            tensors = admit(manifest, request.start_stage, request.rows.tensors, limits)
            _check_rows(request.rows, len(next(iter(tensors.values()))))
            if request.rows.state:
                for name in request.rows.state.keys() & manifest.tensors.keys():
                    raise Malformed(f"state {name!r} has the name of a tensor of the bundle.", "bad_state")
        else:
            tensors = request.rows.tensors
        if deadline is None and all(tensors[name] is request.rows.tensors[name] for name in tensors):
            return request
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
