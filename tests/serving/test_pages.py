import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from common.serving.rest import RestDoor
from tests.serving.doors import FakeCore, digits


@pytest.fixture
def core(tmp_path: Path) -> FakeCore:
    return FakeCore(tmp_path, digits(size=(2, 2)))


@pytest.fixture
async def client(core: FakeCore) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(RestDoor(core))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://device") as client:
        yield client


async def test_every_listed_door_is_there(client: httpx.AsyncClient, core: FakeCore) -> None:
    listed = (await client.get("/")).json()
    assert listed["tier"] == "device" and listed["bundle"] == core.bundle.name
    for door in listed["doors"]:
        reply = await client.request(door["method"], door["path"])
        assert reply.status_code == (415 if door["path"] == "/predict" else 200)


async def test_health(client: httpx.AsyncClient, core: FakeCore) -> None:
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    assert (await client.get("/v2/health/ready")).json() == {"ready": True}
    core.ready = False
    assert (await client.get("/v2/health/live")).status_code == 200
    reply = await client.get("/v2/health/ready")
    assert reply.status_code == 503
    assert reply.json() == {"error": {"code": "not_ready", "message": "Tier device is not ready."}}


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready", "/nothing"])
async def test_head_is_get_without_the_body(client: httpx.AsyncClient, path: str) -> None:
    head, get = await client.head(path), await client.get(path)
    assert head.content == b"" and head.status_code == get.status_code and head.headers == get.headers


@pytest.mark.parametrize("path", ["/nothing", "/predict/", "/%2e%2e/etc/passwd", "/redoc", "/v2"])
async def test_unknown_routes(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.post(path)
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "not_found"
    assert reply.json()["error"]["message"].endswith(" here. GET / lists what there is.")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/v2/health/ready"])
async def test_wrong_methods(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.post(path)
    assert reply.status_code == 405 and reply.headers["allow"] == "GET"
    assert reply.json() == {"error": {"code": "method_not_allowed", "message": f"{path} does not take POST."}}


async def test_the_documentation_loads_nothing(client: httpx.AsyncClient) -> None:
    reply = await client.get("/docs")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script|<link|<img|src=|https?://|@import|url\(", reply.text)
    document = (await client.get("/openapi.json")).json()
    for path in document["paths"]:
        assert f"<code>{path}</code>" in reply.text
    for name in document["components"]["schemas"]:
        assert f'<h3 id="{name}">' in reply.text


async def test_a_defect_is_logged_and_the_service_goes_on(
    core: FakeCore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: object) -> bool:
        raise ZeroDivisionError("secret")

    door = RestDoor(core)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://x") as client:  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            patch.setattr(FakeCore, "ready", property(broken), raising=False)
            reply = await client.get("/v2/health/ready")
        assert reply.status_code == 500 and reply.json()["error"]["code"] == "internal" and "secret" not in reply.text
        assert "GET /v2/health/ready failed" in caplog.text
        assert (await client.get("/")).status_code == 200
