import asyncio

import pytest

from common.errors import ConfigError
from offramp.http_client import ClientError, HttpClient
from tests.offramp.fake_door import fake_door
from tests.offramp.handlers import serving


async def test_connections_are_kept_and_one_serves_each_request_in_flight() -> None:
    with fake_door() as door:
        client = HttpClient(door.url + "/base", "/predict")
        request = client.request("text/plain", b"body")
        for _ in range(5):
            assert (await client.send(request)).status == 200
        assert door.connections == 1
        await asyncio.gather(*(client.send(request) for _ in range(4)))
        assert 1 < door.connections <= 4
        client.close()
    assert {(asked.path, asked.content_type, asked.body) for asked in door.asked} == {
        ("/base/predict", "text/plain", b"body")
    }


async def test_a_server_that_closes_after_each_reply() -> None:
    with fake_door(close=True) as door:
        client = HttpClient(door.url, "/")
        for _ in range(3):
            assert (await client.send(client.request("a/b", b""))).status == 200
        client.close()
    assert door.connections == 3


class Script:
    """A server that writes the next of its lines to each request, then closes where a line is None."""

    def __init__(self, *lines: bytes | None) -> None:
        self.lines = list(lines)
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while self.lines and await reader.read(1 << 16):
            line = self.lines.pop(0)
            if line is None:
                break
            writer.write(line)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced() -> None:
    script = Script(OK, None, OK)
    async with serving(script) as url:
        client = HttpClient(url, "/")
        assert (await client.send(client.request("a/b", b""))).body == b"hi"
        assert (await client.send(client.request("a/b", b""))).body == b"hi"
        client.close()
    assert script.connections == 2


@pytest.mark.parametrize(
    ("line", "kind"),
    [(None, "connection lost"), (b"HTTP/1.1 200 OK\r\nContent-Le", "connection lost"), (b"\x00\x00\x00", "not HTTP")],
)
async def test_a_fresh_connection_that_fails_is_an_error(line: bytes | None, kind: str) -> None:
    async with serving(Script(line)) as url:
        client = HttpClient(url, "/")
        with pytest.raises(ClientError, match=kind):
            await client.send(client.request("a/b", b""))


async def test_chunked_replies_and_replies_in_pieces() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"
    async with serving(Script(chunked)) as url:
        client = HttpClient(url, "/")
        assert (await client.send(client.request("a/b", b""))).body == b"hi"
        client.close()


async def test_a_request_that_is_given_up_takes_its_connection_along() -> None:
    async with serving(Script(b"HTTP/1.1 200 OK\r\n", OK)) as url:
        client = HttpClient(url, "/")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await client.send(client.request("a/b", b""))
        assert (await client.send(client.request("a/b", b""))).body == b"hi"
        client.close()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://h", "http://", "http://h:x", "http://h:99999", "http://h/é"])
def test_a_wrong_url(url: str) -> None:
    with pytest.raises(ConfigError, match="--url is"):
        HttpClient(url, "/")
