"""The floor of a hop: a bare grpc.aio bidirectional stream on uvloop; every message is answered with 40 bytes.

As a program it is the server; `BareClient` is the other end. With an ONNX file as second argument the server also runs
it on every message.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

_METHOD = "/bench.Echo/Stream"
_REPLY = bytes(40)
_OPTIONS = (("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20))


async def _echo(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    async for _ in requests:
        yield _REPLY


def _runner(model: str) -> Any:
    """An echo that runs a stage on what arrives."""
    import numpy as np

    from benchmarks.resnet import session

    stage = session(model)

    async def run(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        async for data in requests:
            (logits,) = stage.run(["logits1"], {"activation": np.frombuffer(data, np.float32)[None]})
            yield logits.tobytes()

    return run


async def serve(port: int, model: str | None = None) -> None:
    """Serve until killed."""
    server = grpc.aio.server(options=_OPTIONS)
    handler = grpc.stream_stream_rpc_method_handler(_runner(model) if model else _echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Stream": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


class BareClient:
    """One stream; `run` keeps so many messages in flight."""

    def __init__(self, port: int) -> None:
        own = ("grpc.use_local_subchannel_pool", 1)  # a connection of its own, as every device has
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=(*_OPTIONS, own))
        self._call = self._channel.stream_stream(_METHOD)(wait_for_ready=True)

    async def run(self, payload: bytes, in_flight: int, count: int) -> list[int]:
        """Nanoseconds from writing each message to reading its reply."""
        if in_flight == 1:
            return await self._one_by_one(payload, count)
        sent: deque[int] = deque()
        taken: list[int] = []
        room = asyncio.Semaphore(in_flight)

        async def write() -> None:
            for _ in range(count):
                await room.acquire()
                sent.append(time.perf_counter_ns())
                await self._call.write(payload)

        writing = asyncio.create_task(write())
        for _ in range(count):
            await self._call.read()
            taken.append(time.perf_counter_ns() - sent.popleft())
            room.release()
        await writing
        return taken

    async def _one_by_one(self, payload: bytes, count: int) -> list[int]:
        taken = []
        for _ in range(count):
            begin = time.perf_counter_ns()
            await self._call.write(payload)
            await self._call.read()
            taken.append(time.perf_counter_ns() - begin)
        return taken

    def compute_us(self) -> float:
        """What of it is computing: nothing that this end would know of."""
        return 0.0

    async def close(self) -> None:
        """Close the channel."""
        self._call.cancel()
        await self._channel.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), *sys.argv[2:]))
