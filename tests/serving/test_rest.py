import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import Cancelled, DeadlineExceeded, Overloaded, RequestError, Unavailable
from common.limits import Limits
from common.serving.bodies import Parsed
from common.serving.prediction import _READERS
from common.serving.rest import RestDoor
from common.types import Deadline
from tests.serving.doors import FakeCore, digits, labels

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
JSON = {"content-type": "application/json"}


@pytest.fixture
def core(tmp_path: Path) -> FakeCore:
    return FakeCore(tmp_path, digits(size=(2, 2)), Limits(batch_rows=16, body_bytes=4096, buffered_bytes=6000))


@pytest.fixture
async def client(core: FakeCore) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(RestDoor(core), raise_app_exceptions=True)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://device") as client:
        yield client


def rows(count: int) -> list[Any]:
    return [[i, 0, 0, 0] for i in range(count)]


async def test_answers_have_the_form_of_the_contract(client: httpx.AsyncClient, core: FakeCore) -> None:
    reply = await client.post("/predict", json={"inputs": rows(1)}, headers={"x-request-id": "mine"})
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"] == "mine"
    assert reply.json() == {
        "request_id": "mine",
        "bundle": f"small@{core.bundle.digest}",
        "answers": [
            {
                "label": 0,
                "name": "class 0",
                "confidence": 0.75,
                "exit": 0,
                "tier": "edge",
                "degraded": None,
                "hops": [
                    {"tier": "device", "queue_ms": 0.123, "compute_ms": 1.0, "network_ms": 0.0},
                    {"tier": "edge", "queue_ms": 0.0, "compute_ms": 0.0, "network_ms": 2.0},
                ],
            }
        ],
    }


async def test_answers_keep_the_callers_order(client: httpx.AsyncClient) -> None:
    reply = (await client.post("/predict", json={"inputs": rows(16)})).json()
    assert labels(reply) == [i % 5 for i in range(16)]


async def test_the_core_is_asked_what_the_caller_asks(client: httpx.AsyncClient, core: FakeCore) -> None:
    await client.post("/predict", json={"inputs": rows(2)}, headers={"traceparent": TRACE})
    body = {
        "inputs": rows(1), "timeout_ms": 60_000, "operating_point": "full", "probabilities": True, "forward": False
    }  # fmt: skip
    reply = (await client.post("/predict", json=body, headers={"traceparent": "odd"})).json()
    plain, special = core.requests
    assert plain.rows.ids == (0, 1) and plain.bundle == core.bundle.digest and plain.traceparent == TRACE
    assert (plain.operating_point, plain.forward, plain.want_probabilities) == ("default", True, False)
    assert plain.deadline.at == float("inf") and plain.request_id != special.request_id
    assert (special.operating_point, special.forward, special.want_probabilities) == ("full", False, True)
    assert special.deadline.at <= Deadline.after(60).at and special.traceparent == ""
    assert reply["answers"][0]["degraded"] == "upstream_unavailable"
    assert reply["answers"][0]["probabilities"] == [0.75, 0.25, 0.0, 0.0, 0.0]


async def test_options_in_the_query(client: httpx.AsyncClient, core: FakeCore) -> None:
    await client.post("/predict?operating_point=full&forward=false", json={"inputs": rows(1)})
    assert core.requests[0].operating_point == "full" and not core.requests[0].forward


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code", "sentence"),
    [
        (b"{", "application/json", 400, "bad_json", "The body is not JSON: "),
        (b'{"inputs": []}', "application/json", 400, "empty_batch", "The batch is empty. It must hold at least one "),
        (b'{"inputs": [[1, 2]]}', "application/json", 400, "bad_shape", "inputs[0] has shape [2]. It must be [1, 2, "),
        (b'{"inputs": [[1]], "x": 1}', "application/json", 422, "unknown_key", '"x" is not a known key. The keys are '),
        (b'{"inputs": [[0,0,0,0]], "operating_point": "x"}', "application/json", 422, "unknown_operating_point",
         "operating_point is 'x'. It must be one of default, full."),
        (orjson.dumps({"inputs": rows(17)}), "application/json", 413, "batch_too_large", "The batch has 17 rows. At "),
        (b"x" * 4097, "application/json", 413, "body_too_large", "The body is longer than 4096 bytes, the most that "),
        (b"x", "text/plain", 415, "unsupported_type", "The body has type text/plain. It must be one of "),
        (b"x", "image/png", 400, "bad_image", "The body is not a PNG image."),
        (b"x", "application/x-npy", 400, "bad_npy", "The body is not an npy file."),
        (b"x", "multipart/form-data", 400, "bad_multipart", "The content-type multipart/form-data has no boundary."),
    ],
)  # fmt: skip
async def test_bad_input_gets_one_sentence(
    client: httpx.AsyncClient, core: FakeCore, content: bytes, content_type: str, status: int, code: str, sentence: str
) -> None:
    headers = {"content-type": content_type, "x-request-id": "mine"}
    reply = await client.post("/predict", content=content, headers=headers)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, code) and error.keys() == {"code", "message"}
    assert error["message"].startswith(sentence) and error["message"].endswith(".")
    assert reply.headers["x-request-id"] == "mine" and core.refusals == [code]
    assert (await client.post("/predict", json={"inputs": rows(1)})).status_code == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Overloaded("Full."), 429),
        (Unavailable("Nobody."), 503),
        (DeadlineExceeded("Late."), 504),
        (Cancelled("Withdrawn."), 503),
    ],
)
async def test_the_cores_refusals(client: httpx.AsyncClient, core: FakeCore, error: RequestError, status: int) -> None:
    core.error = error
    reply = await client.post("/predict", json={"inputs": rows(1)})
    assert reply.status_code == status and core.refusals == [error.code]
    assert reply.json() == {"error": {"code": error.code, "message": str(error)}}


async def test_a_defect_is_logged_and_the_service_goes_on(
    client: httpx.AsyncClient, core: FakeCore, caplog: pytest.LogCaptureFixture
) -> None:
    core.error = ZeroDivisionError("secret")
    reply = await client.post("/predict", json={"inputs": rows(1)}, headers={"x-request-id": "mine"})
    assert reply.status_code == 500 and "secret" not in reply.text and reply.json()["error"]["code"] == "internal"
    assert "request mine failed" in caplog.text and "ZeroDivisionError: secret" in caplog.text
    core.error = None
    assert (await client.post("/predict", json={"inputs": rows(1)})).status_code == 200


async def test_a_body_in_pieces(client: httpx.AsyncClient) -> None:
    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    whole = orjson.dumps({"inputs": rows(3)})
    reply = await client.post("/predict", content=pieces(whole), headers=JSON)
    assert labels(reply.json()) == [0, 1, 2]
    reply = await client.post("/predict", content=pieces(b" " * 4097), headers=JSON)
    assert reply.status_code == 413


def scope(**more: Any) -> dict[str, Any]:
    headers = [(b"content-type", b"application/json")]
    return {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers, **more}


class Call:
    """One request driven by hand."""

    def __init__(self, door: RestDoor, **more: Any) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[Any] = []
        self.task = asyncio.create_task(door(scope(**more), self.incoming.get, self._send))

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    def body(self, data: bytes, more: bool = False) -> None:
        self.incoming.put_nowait({"type": "http.request", "body": data, "more_body": more})

    def leave(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})


async def test_a_declared_length_is_refused_before_reading(core: FakeCore) -> None:
    call = Call(RestDoor(core), headers=[(b"content-length", b"4097")])
    await call.task
    assert call.sent[0]["status"] == 413


async def test_a_caller_that_leaves_withdraws_its_request(core: FakeCore) -> None:
    core.hold = asyncio.Event()
    call = Call(RestDoor(core))
    call.body(orjson.dumps({"inputs": rows(1)}))
    while not core.requests:
        await asyncio.sleep(0)
    call.leave()
    await core.withdrawn.wait()
    await call.task
    assert call.sent == [] and core.refusals == []


async def test_a_cancelled_door_is_cancelled(core: FakeCore) -> None:
    core.hold = asyncio.Event()
    call = Call(RestDoor(core))
    call.body(orjson.dumps({"inputs": rows(1)}))
    while not core.requests:
        await asyncio.sleep(0)
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task


async def test_slow_requests_of_callers_that_stay_are_answered(core: FakeCore) -> None:
    core.hold = asyncio.Event()
    call = Call(door := RestDoor(core))
    call.body(orjson.dumps({"inputs": rows(1)}))
    while call.incoming.qsize() or not door._callers._listening:
        await asyncio.sleep(0.001)
    core.hold.set()
    await call.task
    assert call.sent[0]["status"] == 200 and not door._callers._listening


@pytest.mark.parametrize("more", [True, False])
async def test_a_caller_that_leaves_before_its_body_is_there(core: FakeCore, more: bool) -> None:
    call = Call(door := RestDoor(core))
    if more:
        call.body(b"{", more=True)
    call.leave()
    await call.task
    assert call.sent == [] and door._buffered == 0


async def test_bodies_of_all_callers_together_are_bounded(core: FakeCore) -> None:
    door = RestDoor(core)
    calls = [Call(door) for _ in range(2)]
    for call in calls:
        call.body(b" " * 2000, more=True)
        call.body(b" " * 1500, more=True)
    done, _ = await asyncio.wait([call.task for call in calls], return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    (refused,) = (call for call in calls if call.task in done)
    assert refused.sent[0]["status"] == 429 and (b"retry-after", b"1") in refused.sent[0]["headers"]
    (other,) = (call for call in calls if call.task not in done)
    other.body(b" ")
    await other.task
    assert other.sent[0]["status"] == 400 and door._buffered == 0


async def test_bodies_count_until_they_are_answered(core: FakeCore) -> None:
    core.hold = asyncio.Event()
    door = RestDoor(core)
    first, second = Call(door), Call(door)
    inputs = orjson.dumps({"inputs": rows(1)})
    first.body(inputs, more=True)
    first.body(b" " * 3500)
    while not core.requests:
        await asyncio.sleep(0.001)
    second.body(inputs, more=True)
    second.body(b" " * 3500)
    await second.task
    assert second.sent[0]["status"] == 429
    core.hold.set()
    await first.task
    assert first.sent[0]["status"] == 200 and door._buffered == 0


async def test_bodies_wait_for_a_thread_where_they_can_be_taken_back(
    core: FakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a pool of threads has queued it keeps, whether or not its caller is still there."""
    door = RestDoor(core)
    bodies = door._predictions.bodies
    at_work, go = Semaphore(0), Event()
    read = bodies.read

    def slow(*args: Any) -> Parsed:
        at_work.release()
        assert go.wait(30)
        return read(*args)

    monkeypatch.setattr(bodies, "read_quickly", lambda *_: None)
    monkeypatch.setattr(bodies, "read", slow)
    calls = [Call(door) for _ in range(_READERS + 3)]
    for call in calls:
        call.body(orjson.dumps({"inputs": rows(1)}))
    for _ in range(_READERS):
        await asyncio.to_thread(at_work.acquire)
    calls[0].leave()  # one that is being read: its thread is not free before it is through
    calls[-1].leave()  # one that waits
    await asyncio.gather(calls[0].task, calls[-1].task)
    assert not at_work.acquire(blocking=False)
    go.set()
    await asyncio.gather(*(call.task for call in calls))
    assert [call.sent[0]["status"] for call in calls[1:-1]] == [200] * (_READERS + 1)
    assert len(core.requests) == _READERS + 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_predict_takes_post_only(client: httpx.AsyncClient, method: str) -> None:
    reply = await client.request(method, "/predict")
    assert reply.status_code == 405 and reply.headers["allow"] == "POST"
    assert reply.json()["error"]["code"] == "method_not_allowed"


TYPES = st.sampled_from(
    ["application/json", "application/x-npy", "image/png", "image/jpeg", "multipart/form-data; boundary=b", "", "x/y"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.binary(max_size=200), TYPES, st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"\x89PNG\r\n\x1a\n", b"--b\r\n"]))
def test_no_bytes_are_the_tiers_fault(core: FakeCore, raw: bytes, content_type: str, magic: bytes) -> None:
    async def ask() -> int:
        call = Call(RestDoor(core), headers=[(b"content-type", content_type.encode())])
        call.body(magic + raw)
        await call.task
        status: int = call.sent[0]["status"]
        return status

    assert asyncio.run(ask()) in (200, 400, 413, 415, 422)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.lists(st.integers(0, 255), min_size=4, max_size=4), min_size=1, max_size=16))
def test_what_is_sent_is_what_the_core_gets(core: FakeCore, inputs: list[list[int]]) -> None:
    async def ask() -> Any:
        call = Call(RestDoor(core))
        call.body(orjson.dumps({"inputs": inputs}))
        await call.task
        return orjson.loads(call.sent[1]["body"])

    assert labels(asyncio.run(ask())) == [sum(row) % 5 for row in inputs]
    assert np.array_equal(core.requests[-1].rows.tensors["image"].reshape(-1, 4), inputs)
