"""The floor of a hop: a bare grpc.aio bidirectional stream on uvloop; every message is answered with 40 bytes.

As a program it is the server; `BareClient` is the other end.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator

import grpc
import uvloop

_METHOD = "/bench.Echo/Stream"
_REPLY = bytes(40)
_OPTIONS = (("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20))


async def _echo(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    async for _ in requests:
        yield _REPLY


async def serve(port: int) -> None:
    """Serve until killed."""
    server = grpc.aio.server(options=_OPTIONS)
    handler = grpc.stream_stream_rpc_method_handler(_echo)
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

    async def close(self) -> None:
        """Close the channel."""
        self._call.cancel()
        await self._channel.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
