import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from common.address import Address
from common.errors import RequestError, Unavailable
from common.serving import pool as pools
from common.serving.pool import Pool
from common.serving.upstream import Call
from common.types import Answer, Request, Rows
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


class Link:
    """A link that is up at once."""

    def __init__(self, address: str) -> None:
        self.address, self.up, self.rows_in_flight, self.closed = address, True, 0, False

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str] | None]:
    """A name server: host -> addresses, None while it does not know."""
    known: dict[str, list[str] | None] = {}

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        found = known[host]
        if found is None:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    monkeypatch.setattr(pools, "RESOLVE_S", 0.0)
    monkeypatch.setattr(pools, "LOOK_S", 0.01)
    return known


async def test_a_name_that_is_unknown_for_a_while_changes_nothing(names: dict[str, list[str] | None]) -> None:
    names["edge.example"] = ["10.0.0.1"]
    pool = Pool([Address(host="edge.example", port=5)], Link)  # type: ignore[arg-type]
    await pool.start()
    await until(lambda: list(pool._links) == ["10.0.0.1:5"])
    (first,) = pool._links.values()
    names["edge.example"] = None
    await asyncio.sleep(0.05)
    assert list(pool._links) == ["10.0.0.1:5"]
    names["edge.example"] = ["10.0.0.2"]
    await until(lambda: list(pool._links) == ["10.0.0.2:5"])
    assert first.closed  # type: ignore[attr-defined]
    await pool.close()


async def test_a_name_that_is_unknown_leaves_the_others(names: dict[str, list[str] | None]) -> None:
    names |= {"gone.example": None, "edge.example": ["10.0.0.1"]}
    pool = Pool([Address(host=host, port=5) for host in names], Link)  # type: ignore[arg-type]
    await pool.start()
    await until(lambda: list(pool._links) == ["10.0.0.1:5"])
    await pool.close()


async def test_starting_does_not_wait_for_the_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    pool = Pool([Address(host="edge.example", port=5)], Link)  # type: ignore[arg-type]
    await asyncio.wait_for(pool.start(), 5)
    await pool.close()


async def test_what_one_link_left_open_goes_to_another() -> None:
    """The first link answers some rows and breaks; the second is asked for the others alone, under the same id."""

    class Half(Link):
        seen: ClassVar[list[Request]] = []

        def send(self, call: Call) -> None:
            self.seen.append(call.request)
            rows = call.request.rows.ids
            some = rows[: len(rows) // 2] if len(self.seen) == 1 else rows
            call.answered([Answer(row=row, label=1, confidence=0.5, exit=0, tier=self.address) for row in some])
            call.ended(Unavailable("broke") if len(self.seen) == 1 else None)

    class Noted:
        def __init__(self, request: Request) -> None:
            self.request, self.answers, self.end = request, list[Answer](), "none"

        def answered(self, answers: Sequence[Answer]) -> None:
            self.answers.extend(answers)

        def ended(self, error: RequestError | None) -> None:
            self.end = str(error)

    pool = Pool([], Half)  # type: ignore[arg-type]
    pool._links = {name: Half(name) for name in ("a", "b")}  # type: ignore[assignment]
    x_BD = inputs(6)
    rows = Rows(ids=tuple(range(10, 16)), tensors={"x": x_BD})
    call = Noted(Request(request_id="r", rows=rows, bundle="b", operating_point="p"))
    pool.forward(call)
    first, second = Half.seen
    assert (first.request_id, second.request_id) == ("r", "r")
    assert second.rows.ids == (13, 14, 15) and np.array_equal(second.rows.tensors["x"], x_BD[3:])
    assert [a.row for a in call.answers] == [10, 11, 12, 13, 14, 15] and call.end == "None"
    assert {a.tier for a in call.answers} == {"a", "b"}
    await pool.close()
