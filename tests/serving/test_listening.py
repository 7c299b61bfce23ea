import asyncio
import socket

import pytest
import uvloop

from common.serving.listening import listen, stop_listening


class Greets(asyncio.Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.write(b"here")
        transport.close()


async def greeting(host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("shared", [False, True])
def test_every_interface_is_every_interface(run: object, shared: bool) -> None:
    async def main() -> None:
        server = await listen(Greets, "::", 0, shared=shared)
        await server.start_serving()
        port = server.sockets[0].getsockname()[1]
        assert [await greeting(host, port) for host in ("127.0.0.1", "::1")] == [b"here", b"here"]
        if shared:
            beside = await listen(Greets, "::", port, shared=True)
            beside.close()
        else:
            with pytest.raises(OSError, match="in use"):
                await listen(Greets, "::", port)
            with pytest.raises(OSError, match="in use"):
                await listen(Greets, "0.0.0.0", port)
        server.close()
        await server.wait_closed()

    assert callable(run)
    run(main())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("turns", range(6))
def test_whoever_was_accepted_is_served_though_the_server_closes(run: object, turns: int) -> None:
    made: list[asyncio.BaseTransport] = []

    class Notes(Greets):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            made.append(transport)
            super().connection_made(transport)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await listen(Notes, "127.0.0.1", 0)
        await server.start_serving()
        callers = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await stop_listening(server)
        known = len(made)
        heard = []
        for caller in callers:
            with caller:
                caller.setblocking(False)
                try:
                    heard.append(await asyncio.wait_for(loop.sock_recv(caller, 10), 10))
                except ConnectionResetError:
                    heard.append(b"")
        assert heard == [b"here"] * known + [b""] * (3 - known)
        assert len(made) == known, "nobody comes in after that"

    assert callable(run)
    run(main())
