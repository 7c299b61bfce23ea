import asyncio
import io
import itertools
import json
import socket
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import ConfigError
from offramp.cli import main
from offramp.load_inputs import load_inputs
from offramp.load_report import due_latencies, percentile, report
from offramp.load_run import Outcome, Plan, Sample, arrivals, run_load
from offramp.precise_timer import PreciseTimer
from tests.offramp.fake_door import Asked, answer, answers, fake_door, refusal
from tests.offramp.handlers import serving


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for index, label in enumerate((7, 3)):
        pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) + index
        Image.fromarray(pixels).save(tmp_path / f"{index}-{label}.png")
    (tmp_path / "LICENSE").write_text("no input")
    return tmp_path


def test_json_bodies_hold_raw_pixels(images: Path) -> None:
    first, second = load_inputs(images, "json")
    pixels = np.arange(12).reshape(1, 3, 4).tolist()
    assert json.loads(first.body.data) == {"inputs": [pixels]}
    assert (first.label, second.label) == (7, 3)
    assert first.body.content_type == "application/json"


def test_npy_bodies_hold_a_batch_of_one_and_png_bodies_the_file(images: Path) -> None:
    npy = load_inputs(images, "npy")[0].body
    loaded = np.load(io.BytesIO(npy.data), allow_pickle=False)
    assert (loaded.shape, loaded.dtype, npy.content_type) == ((1, 1, 3, 4), np.uint8, "application/x-npy")
    png = load_inputs(images, "png")[0].body
    assert (png.data, png.content_type) == ((images / "0-7.png").read_bytes(), "image/png")


def test_colour_images_put_channels_first_and_other_files_have_no_label(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 3), (1, 2, 3, 255)).save(tmp_path / "photo.png")
    np.save(tmp_path / "raw.npy", np.zeros((2, 2), np.uint8))
    photo, raw = load_inputs(tmp_path, "json")
    values = np.array(json.loads(photo.body.data)["inputs"])
    assert values.shape == (1, 3, 3, 4) and values[0, :, 0, 0].tolist() == [1, 2, 3]
    assert np.array(json.loads(raw.body.data)["inputs"]).shape == (1, 2, 2)
    assert photo.label is raw.label is None


def test_inputs_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no file"):
        load_inputs(tmp_path, "json")
    (tmp_path / "x.png").write_text("no image")
    with pytest.raises(ConfigError, match=r"x\.png cannot be read"):
        load_inputs(tmp_path, "json")


def test_arrivals_are_random_and_repeatable() -> None:
    plan = Plan(url="", rate=100.0, seconds=100.0, seed=1)
    moments = list(arrivals(plan))
    assert moments == list(arrivals(plan)) == sorted(moments)
    assert moments[-1] < 100.0
    assert abs(len(moments) - 10_000) < 400  # four standard deviations
    gaps = [b - a for a, b in itertools.pairwise(moments)]
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.1)  # as of a Poisson process


def test_percentiles_by_nearest_rank() -> None:
    values = [float(value) for value in range(1, 11)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.95, 0.99, 1.0)] == [5, 9, 10, 10, 10]
    assert percentile([3.0], 0.5) == 3.0


def sample(latency_s: float, tier: str = "device", degraded: str | None = None, right: bool | None = True) -> Sample:
    return Sample(due_s=0.0, latency_s=latency_s, entry="device", tier=tier, exit=0, degraded=degraded, right=right)


def test_the_report_keeps_local_forwarded_and_degraded_apart() -> None:
    outcome = Outcome(sent=6, not_sent=1, elapsed_s=2.0)
    outcome.samples = [
        sample(0.001),
        sample(0.003),
        sample(0.01, "edge", right=False),
        sample(0.2, degraded="deadline"),
    ]
    outcome.errors.update({"HTTP 429 overloaded": 2})
    document = report(Plan(url="u", rate=3.0, seconds=2.0), outcome)
    assert document["latency_ms"]["local"] == {
        "count": 2, "mean": 2.0, "p50": 1.0, "p90": 3.0, "p95": 3.0, "p99": 3.0, "max": 3.0,
    }  # fmt: skip
    assert [document["latency_ms"][group]["count"] for group in ("all", "forwarded", "degraded")] == [4, 1, 1]
    assert document["latency_ms"]["due"]["count"] == 7  # two errors and one not sent besides
    assert document["accuracy"] == 0.75 and document["labelled"] == 4
    assert document["achieved_rate"] == 2.0
    assert (document["sent"], document["not_sent"], document["completed"]) == (6, 1, 4)
    assert document["tiers"] == {"device": 3, "edge": 1}
    assert document["degraded"] == {"deadline": 1}
    assert document["errors"] == {"HTTP 429 overloaded": 2}


def test_what_got_no_answer_is_no_reason_for_better_percentiles() -> None:
    outcome = Outcome(sent=96, not_sent=4, elapsed_s=2.0)
    outcome.samples = [sample(0.001)] * 94
    outcome.errors.update({"no reply within 3 s": 2})
    latency = report(Plan(url="u", rate=50.0, seconds=2.0, give_up_s=3.0), outcome)["latency_ms"]
    assert latency["all"]["p99"] == 1.0
    assert (latency["due"]["p90"], latency["due"]["p95"], latency["due"]["max"]) == (1.0, 3000.0, 3000.0)


def test_a_report_of_nothing() -> None:
    document = report(Plan(url="u", rate=3.0, seconds=2.0), Outcome())
    assert document["accuracy"] is None
    assert document["latency_ms"] == {"all": None, "local": None, "forwarded": None, "degraded": None, "due": None}


def test_the_command_reports_what_the_door_said(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def reply(asked: Asked) -> tuple[int, object]:
        pixel = json.loads(asked.body)["inputs"][0][0][0][0]
        return answers(answer(7)) if pixel == 0 else answers(answer(7, tier="cloud", exit=2))

    with fake_door(reply) as door:
        arguments = ["load", "--url", door.url, "--rate", "200", "--seconds", "0.3", "--inputs", str(images)]
        assert main([*arguments, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["sent"] == document["completed"] == len(door.asked) - 1  # and a first one, not counted
        assert document["sent"] == len(list(arrivals(Plan(url="", rate=200.0, seconds=0.3))))
        assert set(document["tiers"]) == {"cloud", "device"} and set(document["exits"]) == {"0", "2"}
        assert document["accuracy"] == pytest.approx(document["tiers"]["device"] / document["completed"], abs=1e-6)
        assert document["errors"] == document["degraded"] == {}
        assert main([*arguments, "--operating-point", "full", "--timeout-ms", "50"]) == 0
        assert door.asked[-1].path == "/predict?operating_point=full&timeout_ms=50.0"
    out = capsys.readouterr().out
    assert "answered by cloud" in out and "forwarded" in out


REPLY_BODY = json.dumps(answers()[1]).encode()
REPLY = f"HTTP/1.1 200 OK\r\nContent-Length: {len(REPLY_BODY)}\r\n\r\n".encode() + REPLY_BODY


async def test_a_stall_cannot_hide(images: Path) -> None:
    """The latency of what was due during a stall counts from when it was due, though nothing could be sent."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while await reader.read(1 << 16):
            asked += 1
            if asked == 2:  # the first that counts: this whole process does nothing for a while
                time.sleep(0.3)
            writer.write(REPLY)

    async with serving(serve) as url:
        outcome = await run_load(Plan(url=url, rate=100.0, seconds=0.5), load_inputs(images, "json"))
    late = [s.latency_s for s in outcome.samples if s.latency_s > 0.05]
    assert len(late) > 5  # 25 or so were due in the first 0.25 s of the stall
    assert outcome.lateness_s > 0.1


async def test_at_most_so_many_are_in_flight(images: Path) -> None:
    hold = asyncio.Event()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.read(1 << 16):
            if connections > 1:  # all but the first request, which is not counted
                await hold.wait()
            writer.write(REPLY.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    async with serving(serve) as url:
        plan = Plan(url=url, rate=100.0, seconds=0.3, max_in_flight=4, give_up_s=0.4)
        outcome = await run_load(plan, load_inputs(images, "json"))
        hold.set()
    assert outcome.sent == 4 and outcome.not_sent > 10
    assert set(due_latencies(plan, outcome)) == {0.4}
    assert outcome.errors == {"no reply within 0.4 s": 4}


async def test_connections_are_open_before_the_clock_runs(images: Path) -> None:
    """So that no request that counts waits for a handshake."""
    connections, before = 0, []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.read(1 << 16):
            before.append(connections)
            writer.write(REPLY)

    async with serving(serve) as url:
        outcome = await run_load(Plan(url=url, rate=50.0, seconds=0.2, connections=7), load_inputs(images, "json"))
    assert outcome.sent and not outcome.errors
    assert set(before[1:]) == {7}


def test_errors_are_counted_by_kind(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_door(lambda asked: refusal(429, "overloaded", "Full.")) as door:
        arguments = ["load", "--url", door.url, "--rate", "100", "--seconds", "0.1", "--inputs", str(images), "--json"]
        assert main(arguments) == 1
    captured = capsys.readouterr()
    assert list(json.loads(captured.out)["errors"]) == ["HTTP 429 overloaded"]
    assert "answered none of" in captured.err


def test_a_wrong_body_or_address_is_said_before_the_clock_runs(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_door(lambda asked: refusal(400, "bad_shape", "Wrong shape.")) as door:
        assert main(["load", "--url", door.url, "--inputs", str(images)]) == 1
    assert "answered with HTTP 400 bad_shape: Wrong shape." in capsys.readouterr().err
    assert len(door.asked) == 1
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert main(["load", "--url", url, "--inputs", str(images)]) == 1
    assert "gave no answer: connection refused" in capsys.readouterr().err


async def test_the_timer_never_wakes_early() -> None:
    timer = PreciseTimer()
    for delay in (0.0, 1e-5, 0.0004, 0.003, -1.0):
        due = time.monotonic() + delay
        await timer.until(due)
        assert time.monotonic() >= due
    timer.close()
    await timer.until(time.monotonic() + 1e-3)  # without the timerfd too
