"""A link to one upstream address over streams: one at a time, with many requests in flight.

Whether upstream answers is judged here, by what each line hears. When upstream is going to close the connection, a new
one is opened for what comes next, and what is in flight finishes on the old.
"""

from __future__ import annotations

import asyncio
import logging
import time

import grpc

from common.bundle import Bundle
from common.errors import DeadlineExceeded, Unavailable
from common.limits import Limits
from common.serving.bounds import bounds
from common.serving.introduction import doubts
from common.serving.line import Line
from common.serving.metrics import Metrics
from common.serving.upstream import Call
from common.wire.channels import DESCRIBE, channel_options
from common.wire.frames import up_bytes
from protos import tier_pb2 as pb

log = logging.getLogger(__name__)

RETRY_S = 0.1
STEADY_S = 1.0  # a line that lived so long is followed by another at once: servers close connections that grow old
INTRODUCTION_S = 10.0
_MOST_LINES = 2  # one that is left, and one that follows it
_MOST_UNSENT = 4  # of the largest requests; whatever a tier may have in flight fits


class StreamLink:
    """A link to one address; reconnects until closed.

    Args:
        address: host:port.
        bundle: names the cuts and their codecs.
        limits: message sizes.
        metrics: state, times and bytes are recorded here.
    """

    def __init__(self, address: str, *, bundle: Bundle, limits: Limits, metrics: Metrics) -> None:
        self.address = address
        self.up = False
        self._bundle = bundle
        self._metrics = metrics
        self._limits = limits
        self._most_unsent = _MOST_UNSENT * bounds(bundle.manifest, limits).message_bytes
        self._line: Line | None = None  # takes what is new: the latest that is up
        self._lines: list[Line] = []
        self._living: set[asyncio.Task[None]] = set()
        metrics.upstream_is(address, False)
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def rows_in_flight(self) -> int:
        """Rows that wait for this address."""
        return sum(line.rows_in_flight for line in self._lines)

    def send(self, call: Call) -> None:
        """Put a call on the stream."""
        line = self._line
        if line is None:
            call.ended(Unavailable(f"Upstream {self.address} is down."))
            return
        if line.unsent > self._most_unsent:
            call.ended(DeadlineExceeded(f"Upstream {self.address} does not take in time what it is sent."))
            return
        request = call.request
        message = up_bytes(request, self._bundle.manifest.codes(request.start_stage))
        self._metrics.forwarded_bytes.inc(line.send(call, message))

    def withdraw(self, call: Call) -> None:
        """Tell upstream that nobody waits."""
        for line in self._lines:
            line.withdraw(call.request.request_id)

    async def close(self) -> None:
        """Close the streams; what is in flight fails."""
        self._task.cancel()
        for living in self._living:
            living.cancel()
        await asyncio.gather(self._task, *self._living, return_exceptions=True)
        self._metrics.upstream_gone(self.address)

    # ------------------------------------------------------------------ the lines' lives

    async def _run(self) -> None:
        """Open a line whenever the last one is left or has ended."""
        while True:
            began = time.monotonic()
            line = Line(
                self.address,
                max_message_bytes=self._limits.max_message_bytes,
                metrics=self._metrics,
                changed=self._changed,
            )
            self._lines.append(line)
            living = asyncio.get_running_loop().create_task(self._live(line))
            self._living.add(living)
            living.add_done_callback(self._living.discard)
            await line.left.wait()
            if time.monotonic() - began < STEADY_S:
                await asyncio.sleep(RETRY_S)
            while len(self._lines) >= _MOST_LINES:
                await asyncio.wait(self._living, return_when=asyncio.FIRST_COMPLETED)

    async def _live(self, line: Line) -> None:
        """A line from its connection to its end."""
        introduction: asyncio.Task[None] | None = None
        try:
            await line.connect()
            introduction = asyncio.get_running_loop().create_task(self._introduce())
            why = await line.watch(lambda: self._line is line)
            if why is not None:
                log.info("the connection to upstream %s broke: %s", self.address, why)
        except OSError as error:
            log.debug("no connection to %s: %s", self.address, error)
        except Exception:  # a line that ended for whatever reason is followed by another
            log.exception("stream to %s failed", self.address)
        finally:
            if introduction is not None:
                introduction.cancel()
            self._lines.remove(line)
            for call in line.end():
                self._ask_again(call)

    def _ask_again(self, call: Call) -> None:
        """Send a call, whose line broke, over the line that follows it: asking twice does no harm."""
        if self._line is not None:
            self.send(call)
        else:
            call.ended(Unavailable(f"The connection to upstream {self.address} broke."))

    def _changed(self) -> None:
        """A line has come up or gone down."""
        self._line = next((line for line in reversed(self._lines) if line.up), None)
        up = self._line is not None
        if up != self.up:
            self.up = up
            log.info("upstream %s is %s", self.address, "up" if up else "down")
            self._metrics.upstream_is(self.address, up)

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
