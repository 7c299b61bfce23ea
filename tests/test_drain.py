"""SIGTERM in the middle of load: whatever a tier has taken is answered, and nobody's connection is reset."""

import asyncio
import signal
from collections import Counter
from pathlib import Path

import grpc
import httpx
import pytest

from common.bundle import Bundle
from common.wire.channels import REFUSAL_KEY
from common.wire.frames import request_bytes
from protos import tier_pb2 as pb
from protos import tier_pb2_grpc
from tests.networks import write_skip
from tests.processes import System, running
from tests.serving.chains import inputs, make_request

CALLERS = 12


class Load:
    """Callers that ask again and again until the tier is gone."""

    def __init__(self, system: System, bundle: Bundle) -> None:
        self.system, self.bundle = system, bundle
        self.outcomes: Counter[str] = Counter()

    async def over_http(self) -> None:
        """One connection, kept open."""
        body = {"inputs": inputs(4).tolist(), "operating_point": "full"}
        async with httpx.AsyncClient(timeout=30) as client:
            while True:
                try:
                    reply = await client.post(self.system.rest + "/predict", json=body)
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    self.outcomes[f"HTTP: {error!r}"] += 1
                    return
                assert reply.status_code == 200 and len(reply.json()["answers"]) == 4, reply.text
                self.outcomes["answered over HTTP"] += 1
                await asyncio.sleep(0.005)  # so that connections are idle, too

    async def over_grpc(self, channel: grpc.aio.Channel) -> None:
        """Unary calls of a foreign client."""
        stub = tier_pb2_grpc.TierStub(channel)
        message = pb.InferRequest.FromString(request_bytes(make_request(self.bundle, inputs(4), point="full"), ()))
        while True:
            try:
                reply = await stub.Infer(message)
            except grpc.aio.AioRpcError as error:
                told = dict(error.trailing_metadata() or ()).get(REFUSAL_KEY)
                if told != "draining" and "Connection refused" not in (error.details() or ""):
                    self.outcomes[f"gRPC: {error.code()} {error.details()}"] += 1
                return
            assert len(reply.answers) == 4
            self.outcomes["answered over gRPC"] += 1


@pytest.mark.parametrize("ways", [("HTTP", "gRPC"), ("gRPC",)], ids=" and ".join)
async def test_sigterm_amid_load_of_foreign_clients(ways: tuple[str, ...], tmp_path: Path) -> None:
    bundle, _ = write_skip(tmp_path / "skip")
    loop = asyncio.get_running_loop()
    system = System(tmp_path, tmp_path / "skip", {"device": 4})
    with running(system):
        load = Load(system, bundle)
        address = system.grpc["device"]
        async with grpc.aio.insecure_channel(address) as one, grpc.aio.insecure_channel(address) as other:
            callers = [
                asyncio.create_task(work)
                for number in range(CALLERS)
                for work in (
                    *([load.over_http()] if "HTTP" in ways else []),
                    load.over_grpc(one if number % 2 else other),
                )
            ]
            while min(load.outcomes[f"answered over {way}"] for way in ways) < 10 * CALLERS:
                assert not any(caller.done() for caller in callers), load.outcomes
                await asyncio.sleep(0.01)
            status = await loop.run_in_executor(None, system.kill, "device", signal.SIGTERM)
            await asyncio.gather(*callers)
    assert status == 0 and load.outcomes.keys() == {f"answered over {way}" for way in ways}, load.outcomes
