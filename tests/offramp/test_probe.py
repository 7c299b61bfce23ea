import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from common.address import Address
from common.errors import ConfigError
from offramp.cli import main
from offramp.probe import parse_target
from tests.offramp.fake_door import fake_door


@contextmanager
def grpc_health(status: int) -> Iterator[str]:
    """A gRPC server with the standard health service on a loop of its own."""
    opened: list[int] = []
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = grpc.aio.server()
        servicer = health.aio.HealthServicer()
        await servicer.set("", status)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        opened.append(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        started.set()
        await stop.wait()
        await server.stop(None)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    try:
        yield f"127.0.0.1:{opened[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_forms_of_an_address() -> None:
    here = Address(host="127.0.0.1", port=80)
    assert parse_target("127.0.0.1:80") == ("", here)
    assert parse_target("http://127.0.0.1:80/") == ("http", here)
    assert parse_target("grpc://[::1]:80") == ("grpc", Address(host="::1", port=80))
    for wrong in ("127.0.0.1", "https://h:1", "h:0", "h:x", "http://h:1/path"):
        with pytest.raises(ConfigError, match="ADDRESS is"):
            parse_target(wrong)


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_http(status: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_door(lambda asked: (status, {})) as door:
        assert main(["health", door.address]) == code
        assert main(["health", door.url]) == code
    assert [asked.path for asked in door.asked] == ["/v2/health/ready"] * 2
    captured = capsys.readouterr()
    said = captured.out if code == 0 else captured.err
    assert said.startswith(f"{door.address} is {'ready' if code == 0 else 'not ready'}: HTTP status {status}.")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    with fake_door(lambda asked: (503, {})) as door:
        assert main(["health", door.address, "--json"]) == 1
    assert capsys.readouterr().out == f'{{"address": "{door.address}", "ready": false, "detail": "HTTP status 503"}}\n'


@pytest.mark.parametrize(
    ("status", "code"),
    [(health_pb2.HealthCheckResponse.SERVING, 0), (health_pb2.HealthCheckResponse.NOT_SERVING, 1)],
)
def test_grpc_is_asked_where_http_is_not_spoken(status: int, code: int) -> None:
    with grpc_health(status) as address:
        assert main(["health", address]) == code
        assert main(["health", f"grpc://{address}"]) == code
        assert main(["health", f"http://{address}"]) == 1


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["health", address]) == 1
        assert main(["health", f"grpc://{address}", "--timeout", "1"]) == 1
    assert "no connection" in capsys.readouterr().err


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert main(["health", f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.05"]) == 1
    assert "no answer within 0.05 s" in capsys.readouterr().err
