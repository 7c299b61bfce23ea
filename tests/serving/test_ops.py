from pathlib import Path

import httpx
import pytest

from common.serving.ops import OpsDoor
from tests.networks import write_skip
from tests.serving.chains import make_tier


@pytest.mark.parametrize("ready", [True, False])
async def test_probes_and_metrics(tmp_path: Path, ready: bool) -> None:
    tier = make_tier(write_skip(tmp_path)[0], 0, 4)
    tier.ready = ready

    async def exposed() -> bytes:
        return tier.metrics.text()

    transport = httpx.ASGITransport(app=OpsDoor(tier, exposed))
    async with httpx.AsyncClient(transport=transport, base_url="http://ops") as client:
        for path in ("/live", "/v2/health/live"):
            assert (await client.get(path)).status_code == 200
        for path in ("/ready", "/v2/health/ready"):
            response = await client.get(path)
            assert (response.status_code, response.json()) == (200 if ready else 503, {"ready": ready})
        assert "offramp_queue_rows" in (await client.get("/metrics")).text
        assert (await client.head("/metrics")).content == b""
        assert (await client.get("/nothing")).json()["error"]["code"] == "not_found"
        assert (await client.post("/live")).status_code == 405
    await tier.close()
