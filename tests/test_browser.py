"""The pages of the REST door in a real browser."""

import asyncio
import shutil
from pathlib import Path

import pytest

from common.serving.http import HttpServer
from common.serving.rest import RestDoor
from tests.conftest import BROWSERS
from tests.networks import write_skip
from tests.serving.chains import make_tier

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,1600",
)


async def chromium(profile: Path, *arguments: str) -> str:
    """Run a headless browser to its end; returns what it printed."""
    browser = next(path for name in BROWSERS if (path := shutil.which(name)))
    process = await asyncio.create_subprocess_exec(
        browser, *FLAGS, f"--user-data-dir={profile}", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    return out.decode()


@pytest.mark.browser
async def test_the_docs_page_stands_without_the_internet(tmp_path: Path) -> None:
    tier = make_tier(write_skip(tmp_path / "skip")[0], 0, 4)
    tier.ready = True
    door = RestDoor(tier)
    asked: list[str] = []

    async def noting(scope, receive, send) -> None:
        asked.append(scope["path"])
        await door(scope, receive, send)

    server = await HttpServer.start(noting, "127.0.0.1", 0)
    try:
        url = f"http://127.0.0.1:{server.port}/docs"
        dom = await chromium(tmp_path / "profile", "--dump-dom", url)
        picture = tmp_path / "docs.png"
        await chromium(tmp_path / "profile", f"--screenshot={picture}", url)
    finally:
        await server.stop(grace_s=1.0)
        await tier.close()
    for word in ("/predict", "application/x-npy", "operating_point", "503", "504"):
        assert word in dom, word
    assert "://" not in dom.replace(url, "").replace("http://www.w3.org", ""), "no resource from elsewhere"
    assert set(asked) <= {"/docs", "/favicon.ico"}
    assert picture.stat().st_size > 10_000
