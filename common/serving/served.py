"""One caller's stream on this tier: its messages are taken, and answered in whatever order the answers come.

Messages arrive as bytes and are parsed here, so that one that cannot be parsed is refused like any other bad
input, and ends neither the stream nor what else is in flight on it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from common.errors import Malformed, Overloaded, RequestError
from common.limits import Limits
from common.serving.core import Withdrawable
from common.serving.status import error_to_wire
from common.serving.upstream import Deliver, Ended
from common.types import Answer
from common.wire.frames import reply_bytes
from common.wire.reading import RequestRead, read_request
from protos import tier_pb2 as pb

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)


class Service(Protocol):
    """What a stream needs of the service that it belongs to."""

    @property
    def limits(self) -> Limits:
        """What a caller may ask for."""
        ...

    def submit(self, message: pb.InferRequest | RequestRead, deliver: Deliver, ended: Ended) -> Withdrawable:
        """Admit a request and have the tier begin to answer it; raises RequestError."""
        ...

    def refused(self, code: str) -> None:
        """Count a refusal."""
        ...


class ServedStream:
    """The requests of one caller that are under way.

    Args:
        service: admits requests and has them answered.
        send: takes serialised messages for the caller, of type `Down`.
    """

    def __init__(self, service: Service, send: Callable[[bytes], object]) -> None:
        self.service = service
        self.send = send
        self._most = service.limits.stream_requests
        self._calls: dict[str, _Served] = {}
        self._idle = asyncio.Event()

    def take(self, data: bytes | bytearray) -> None:
        """Take a serialised message of the caller, of type `Up`."""
        request = read_request(data)
        if request is not None:
            self._begin(request)
            return
        try:
            up = parsed(pb.Up, data)
        except Malformed as error:
            self.service.refused(error.code)
            self.refuse("", error)
            return
        kind = up.WhichOneof("message")
        if kind == "request":
            self._begin(up.request)
        elif kind == "cancel":
            call = self._calls.pop(up.cancel.request_id, None)
            if call is not None:
                call.withdraw()
        elif kind == "ping":
            self.send(pb.Down(pong=pb.Pong(id=up.ping.id)).SerializeToString())

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._calls:
            self._idle.clear()
            await self._idle.wait()

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

    def refuse(self, request_id: str, error: RequestError) -> None:
        """Say that a request gets no (further) answers."""
        refusal = pb.Refusal(request_id=request_id, status=error_to_wire(error))
        self.send(pb.Down(refusal=refusal).SerializeToString())

    def _begin(self, message: pb.InferRequest | RequestRead) -> None:
        name = message.request_id
        call = _Served(self, name, len(message.row_ids))
        try:
            if name in self._calls:
                raise Malformed(f"request_id {name[:80]!r} is in flight on this stream.", "duplicate_request")
            if len(self._calls) >= self._most:
                raise Overloaded(f"{len(self._calls)} requests are in flight on this stream: retry later.")
            job = self.service.submit(message, call.deliver, call.ended)
        except RequestError as error:
            self.service.refused(error.code)
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

    def __init__(self, stream: ServedStream, name: str, rows: int) -> None:
        self._stream = stream
        self._started = time.monotonic()
        self._waiting = rows
        self.name = name
        self.job: Withdrawable | None = None

    def deliver(self, answers: Sequence[Answer]) -> None:
        """Send some answers down."""
        self._waiting -= len(answers)
        elapsed_us = int((time.monotonic() - self._started) * 1e6)
        self._stream.send(reply_bytes(self.name, answers, last=self._waiting == 0, elapsed_us=elapsed_us))

    def ended(self, error: RequestError | None) -> None:
        """Nothing more will come."""
        self.job = None  # it knows this call: together they would keep the request's tensors until a collection
        self._stream.over(self)
        if error is not None:
            self._stream.service.refused(error.code)
            self._stream.refuse(self.name, error)

    def withdraw(self) -> None:
        """The caller does not wait any more."""
        job, self.job = self.job, None
        if job is not None:
            job.withdraw()


def parsed(kind: type[M], data: bytes | bytearray) -> M:
    """A message from its bytes; raises Malformed."""
    try:
        return kind.FromString(bytes(data))
    except DecodeError:
        raise Malformed(f"The message is not an {kind.DESCRIPTOR.full_name}.", "bad_message") from None
