import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from offramp.cli import main
from tests.networks import WIDTH, write_skip
from tests.processes import free_ports, wait_for

ROOT = Path(__file__).parent.parent.parent
WAIT_S = 60.0


class Running:
    """`offramp up` as a process whose lines can be waited for."""

    def __init__(self, config: Path) -> None:
        command = [sys.executable, "-m", "offramp", "up", "--config", str(config)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
        self.lines: list[str] = []
        self._new: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._new.put(line.rstrip())
        self._new.put(None)

    def line(self, pattern: str) -> re.Match[str]:
        """Wait for a line, and return the match."""
        while (line := self._new.get(timeout=WAIT_S)) is not None:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no line has {pattern!r}: {self.lines}")

    def end(self) -> int:
        """Wait for the process and the end of its output; returns the exit status."""
        while (line := self._new.get(timeout=WAIT_S)) is not None:
            self.lines.append(line)
        self._reader.join()
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self._reader.join()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def up(config: Path) -> Iterator[Running]:
    running = Running(config)
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_skip(tmp_path / "net")
    ports = [f"127.0.0.1:{port}" for port in free_ports(3)]
    tiers = {
        "device": {"stages": 1, "rest": ports[0], "drain_seconds": 2},
        "edge": {"stages": 1, "grpc": ports[1], "drain_seconds": 2},
        "cloud": {"stages": "rest", "grpc": ports[2], "drain_seconds": 2},
    }
    path = tmp_path / "tiers.yaml"
    path.write_text(yaml.safe_dump({"bundle": "net", "tiers": tiers}, sort_keys=False))
    return path


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def answering_tier(url: str) -> str:
    body = {"inputs": [[0.5] * WIDTH], "operating_point": "full"}
    tier: str = httpx.post(url + "/predict", json=body).json()["answers"][0]["tier"]
    return tier


def test_every_tier_starts_is_watched_and_stops(config: Path) -> None:
    with up(config) as running:
        pids = {name: int(running.line(rf"{name} +\| process (\d+)")[1]) for name in ("cloud", "edge", "device")}
        url = running.line("All tiers are ready: ask (http://[0-9.:]+) and press Ctrl-C")[1]
        wait_for(lambda: answering_tier(url) == "cloud", "the cloud to be reached")
        os.kill(pids["edge"], signal.SIGKILL)
        running.line(r"edge +\| ended with signal 9; starting it again in 0\.5 s")
        pids["edge again"] = int(running.line(r"edge +\| process (\d+)")[1])
        assert answering_tier(url) in ("cloud", "device")  # degraded meanwhile, never without an answer
        wait_for(lambda: answering_tier(url) == "cloud", "forwarding to go on")
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 0
        assert all(gone(pid) for pid in pids.values())


def test_tiers_end_with_their_parent(config: Path) -> None:
    with up(config) as running:
        pids = [int(running.line(rf"{name} +\| process (\d+)")[1]) for name in ("cloud", "edge", "device")]
        running.line("All tiers are ready")
        running.process.kill()
        wait_for(lambda: all(map(gone, pids)), "every tier to end")


def test_a_tier_that_cannot_start_stops_everything(config: Path) -> None:
    document = yaml.safe_load(config.read_text())
    host, port = document["tiers"]["edge"]["grpc"].split(":")
    with socket.socket() as taken:
        taken.bind((host, int(port)))
        taken.listen()
        with up(config) as running:
            cloud = int(running.line(r"cloud +\| process (\d+)")[1])
            running.line(r"edge +\| ended before it was ready; stopping every tier")
            assert running.end() == 1
            assert gone(cloud)
    assert not any("Traceback" in line for line in running.lines)


def test_one_port_for_two_tiers_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = yaml.safe_load(config.read_text())
    document["tiers"]["cloud"]["ops"] = document["tiers"]["edge"]["grpc"].replace("127.0.0.1", "0.0.0.0")
    config.write_text(yaml.safe_dump(document, sort_keys=False))
    assert main(["up", "--config", str(config)]) == 2
    assert "On one machine each needs a port of its own." in capsys.readouterr().err


def test_a_bundle_that_is_damaged_is_said_at_once(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "net" / "manifest.json").write_text("{")
    assert main(["up", "--config", str(config)]) == 1
    assert capsys.readouterr().err.startswith("offramp: manifest.json is not valid JSON")
