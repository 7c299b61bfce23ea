"""The image and docker-compose.yml for real: built, brought up, asked, its edge stopped and started under load."""

import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
IMAGES = sorted((ROOT / "examples" / "mnist").glob("*.png"))  # <index>-<label>.png
IMAGE = "offramp:test"
BOOTSTRAPPED = "offramp-base:bookworm"  # what scripts/base-image makes where there is no registry
MB = 1_000_000

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


def run(*command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def base_image() -> str:
    """The base that the environment names, else the bootstrapped one, else the Dockerfile's own."""
    if named := os.environ.get("OFFRAMP_BASE_IMAGE"):
        return named
    if succeeds("docker", "image", "inspect", BOOTSTRAPPED):
        return BOOTSTRAPPED
    return "python:3.11-slim-bookworm"


class System:
    """docker-compose.yml under a project name and ports of its own."""

    def __init__(self) -> None:
        today = succeeds("docker", "compose", "version")
        self.command = ["docker", "compose"] if today else ["docker-compose"]
        self.command += ["--project-name", f"offramp-test-{os.getpid()}"]
        self.base = base_image()
        self.env = os.environ | {
            "OFFRAMP_IMAGE": IMAGE,
            "OFFRAMP_BASE_IMAGE": self.base,
            "OFFRAMP_REST_PORT": "0",  # any free one
            "OFFRAMP_OPS_PORT": "0",
        }

    def compose(self, *arguments: str) -> str:
        return run(*self.command, *arguments, env=self.env)

    def container(self, service: str) -> str:
        return self.compose("ps", "--quiet", service)

    def inspect(self, service: str) -> dict[str, Any]:
        return json.loads(run("docker", "inspect", self.container(service)))[0]

    def execute(self, service: str, code: str) -> str:
        return run("docker", "exec", self.container(service), "python", "-c", code)

    def url(self, port: int = 8000) -> str:
        return f"http://{self.compose('port', 'device', str(port))}"

    def wait_healthy(self, service: str, seconds: float = 60) -> None:
        wait_until(lambda: self.inspect(service)["State"]["Health"]["Status"] == "healthy", seconds, service)


def wait_until(true: Any, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    system = System()
    try:
        system.compose("build")
        system.compose("up", "-d")
        wait_until(lambda: ready(system.url()), 60, "device ready")
        yield system
        print(system.compose("logs", "--no-color", "--tail", "50"))  # pytest shows it where a test failed
    finally:
        system.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v2/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def client(system: System) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url(), timeout=10) as client:
        yield client


def label(image: Path) -> int:
    return int(image.stem.split("-")[1])


def full(image: Path) -> dict[str, Any]:
    """A request that only the last tier may answer, unless it cannot be reached."""
    pixels = np.asarray(Image.open(image).convert("L"))
    return {"inputs": [pixels.ravel().tolist()], "operating_point": "full"}


def test_the_image_is_small_and_holds_no_torch(system: System) -> None:
    size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", IMAGE))
    limit = 500 if system.base == BOOTSTRAPPED else 450
    assert size <= limit * MB, f"{size / MB:.0f} MB"
    for module in ("torch", "onnx", "pip"):
        assert system.execute("device", f"import importlib.util as u; print(u.find_spec({module!r}))") == "None"


@pytest.mark.parametrize("service", ["device", "edge", "cloud"])
def test_a_tier_runs_with_few_rights(system: System, service: str) -> None:
    assert system.execute(service, "import os; print(os.getuid() != 0)") == "True"
    host = system.inspect(service)["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["Memory"] > 0
    write = "try: open('/opt/offramp/x', 'w')\nexcept OSError as error: print(error.strerror)"
    assert system.execute(service, write) == "Read-only file system"


def test_each_hop_has_its_own_network(system: System) -> None:
    def reaches(service: str, host: str, port: int) -> str:
        dial = f"import socket\ntry: socket.create_connection(({host!r}, {port}), 2); print(True)\n"
        return system.execute(service, dial + "except OSError: print(False)")

    assert reaches("device", "edge", 50051) == "True"
    assert reaches("edge", "cloud", 50051) == "True"
    assert reaches("device", "cloud", 50051) == "False"
    assert reaches("cloud", "device", 8000) == "False"


def test_every_example_is_answered_by_the_right_tiers(system: System, client: httpx.Client) -> None:
    assert len(IMAGES) == 256
    tiers: Counter[str] = Counter()
    correct = 0
    for image in IMAGES:
        reply = client.post("/predict", content=image.read_bytes(), headers={"content-type": "image/png"})
        assert reply.status_code == 200, reply.text
        (answer,) = reply.json()["answers"]
        tiers[answer["tier"]] += 1
        correct += answer["label"] == label(image)
    print(f"answers per tier: {dict(tiers)}, accuracy {correct / len(IMAGES):.4f}")
    assert tiers["device"] >= 0.85 * len(IMAGES)
    assert correct >= 0.98 * len(IMAGES)


def test_the_last_tier_is_reached_through_both_hops(client: httpx.Client) -> None:
    client.post("/predict", json=full(IMAGES[0]))  # opens both streams
    for image in IMAGES[:16]:
        (answer,) = client.post("/predict", json=full(image)).json()["answers"]
        assert (answer["tier"], answer["degraded"]) == ("cloud", None)
        assert [hop["tier"] for hop in answer["hops"]] == ["device", "edge", "cloud"]


class Load:
    """Requests in a closed loop; per request the time it was asked and its answers, or what went wrong."""

    def __init__(self, url: str, callers: int) -> None:
        self.url = url
        self.bodies = [(full(image), label(image)) for image in IMAGES[:32]]
        self.stopped = threading.Event()
        self.asked = 0
        self.answered: list[tuple[float, dict[str, Any]]] = []
        self.correct = 0
        self.trouble: list[str] = []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._ask) for _ in range(callers)]

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=10) as client:
            while not self.stopped.is_set():
                with self.lock:
                    body, truth = self.bodies[self.asked % len(self.bodies)]
                    self.asked += 1
                start = time.monotonic()
                try:
                    reply = client.post("/predict", json=body)
                    (answer,) = reply.raise_for_status().json()["answers"]
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    self.trouble.append(repr(error))
                else:
                    with self.lock:
                        self.answered.append((start, answer))
                        self.correct += answer["label"] == truth

    @contextmanager
    def running(self) -> Iterator["Load"]:
        for thread in self.threads:
            thread.start()
        try:
            yield self
        finally:
            self.stopped.set()
            for thread in self.threads:
                thread.join()

    def between(self, start: float, end: float) -> list[dict[str, Any]]:
        return [answer for asked, answer in self.answered if start <= asked < end]


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_edge_goes_and_returns_under_load(system: System, way: str) -> None:
    with Load(system.url(), callers=4).running() as load:
        time.sleep(2)
        leaving = time.monotonic()
        system.compose(way, "edge")
        gone = time.monotonic()
        time.sleep(3)
        returning = time.monotonic()
        system.compose("start", "edge")
        system.wait_healthy("edge")
        back = time.monotonic() + 2
        time.sleep(5)
        end = time.monotonic()

    assert load.trouble == []
    assert len(load.answered) == load.asked
    assert load.correct >= 0.95 * load.asked  # no caller got another's answer

    resumed = min(asked for asked, answer in load.answered if asked > returning and answer["tier"] == "cloud")
    print(f"forwarding again {resumed - returning:.1f} s after the start was asked for")
    before, during, after = load.between(0, leaving), load.between(gone, returning), load.between(back, end)
    print(f"answers: {len(before)} before, {len(during)} without the edge, {len(after)} after")
    assert Counter(answer["tier"] for answer in during) == {"device": len(during)}
    assert {answer["degraded"] for answer in during} <= {"upstream_unavailable", "deadline"}
    for answers in (before, after):
        forwarded = sum(answer["tier"] == "cloud" and answer["degraded"] is None for answer in answers)
        assert forwarded >= 0.95 * len(answers) > 0, Counter(answer["degraded"] for answer in answers)
