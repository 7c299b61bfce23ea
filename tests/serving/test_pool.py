import asyncio
import socket
from pathlib import Path

import pytest

from common.address import Address
from common.serving import pool as pools
from common.serving.pool import Pool
from tests.networks import write_skip
from tests.serving.chains import ask, inputs, make_request, make_tier
from tests.serving.sockets import calling, served, until


async def test_a_name_that_moves_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream that comes back under another address is found without a restart."""
    bundle, _ = write_skip(tmp_path)
    where: list[str] = ["127.0.0.2"]

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert host == "cloud.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in where]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    async with served(make_tier(bundle, 1, 4, name="cloud"), Address(host="127.0.0.2", port=0)) as (_, first):
        name = Address(host="cloud.example", port=first.port)
        context = calling(bundle, 0, 1, [name])
        device, pool = await context.__aenter__()
        await until(pool.up)
    await until(lambda: not pool.up())
    where[:] = ["127.0.0.3", "127.0.0.4"]
    async with served(make_tier(bundle, 1, 4, name="cloud"), Address(host="127.0.0.3", port=first.port)):
        await until(pool.up)
        answers = await ask(device, make_request(bundle, inputs(2), point="full"))
        assert {a.tier for a in answers} == {"cloud"}
        assert sorted(pool._links) == [f"127.0.0.3:{first.port}", f"127.0.0.4:{first.port}"]
    await context.__aexit__(None, None, None)


async def test_a_name_server_that_is_away_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Link:
        up, rows_in_flight, closed = True, 0, False

        def __init__(self, address: str) -> None:
            self.address = address

        async def close(self) -> None:
            self.closed = True

    answers: list[list[str] | None] = [["10.0.0.1"], None, ["10.0.0.2"]]

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        found = answers.pop(0)
        if found is None:
            raise socket.gaierror("away")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    monkeypatch.setattr(pools, "LOOK_S", 3600)
    pool = Pool([Address(host="edge.example", port=5)], Link)  # type: ignore[arg-type]
    await pool.start()
    (first,) = pool._links.values()
    await pool._resolve()
    assert list(pool._links) == ["10.0.0.1:5"]
    await pool._resolve()
    assert list(pool._links) == ["10.0.0.2:5"] and first.closed  # type: ignore[attr-defined]
    await pool.close()
