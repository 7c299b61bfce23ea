"""Real tier processes on loopback for tests that stop, freeze and kill them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml

START_S = 30.0


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class System:
    """device, edge and cloud as three processes, each with its ops door."""

    def __init__(
        self, root: Path, bundle: Path, stages: dict[str, int], *, timeout_ms: int = 5000, **first: object
    ) -> None:
        """`first` holds further keys of the first tier."""
        ports = iter(free_ports(1 + 2 * len(stages)))
        self.rest = f"http://127.0.0.1:{next(ports)}"
        self.ops: dict[str, str] = {}
        self.grpc: dict[str, str] = {}
        tiers: dict[str, dict[str, object]] = {}
        for name, count in stages.items():
            address = f"127.0.0.1:{next(ports)}"
            self.ops[name] = f"http://{address}"
            self.grpc[name] = f"127.0.0.1:{next(ports)}"
            tiers[name] = {"stages": count, "ops": address, "grpc": self.grpc[name]}
            tiers[name] |= {"upstream_timeout_ms": timeout_ms, "drain_seconds": 5}
        tiers[next(iter(stages))] |= {"rest": self.rest.removeprefix("http://"), **first}
        self.config = root / "tiers.yaml"
        self.config.write_text(yaml.safe_dump({"bundle": str(bundle), "tiers": tiers}, sort_keys=False))
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str) -> None:
        """Start a tier and wait until it reports ready."""
        command = [sys.executable, "-m", "offramp", "serve", name, "--config", str(self.config)]
        self.processes[name] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        wait_for(lambda: self.ready(name), f"{name} to be ready", lambda: self.processes[name].poll() is None)

    def ready(self, name: str) -> bool:
        try:
            return httpx.get(self.ops[name] + "/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, tier: str, name: str, **labels: str) -> float:
        """The sum over all samples of a metric that carry these labels."""
        total = 0.0
        for line in httpx.get(self.ops[tier] + "/metrics", timeout=5).text.splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and all(f'{k}="{v}"' in head for k, v in labels.items()):
                total += float(value)
        return total

    def upstream_up(self, tier: str) -> bool:
        return self.metric(tier, "offramp_upstream_state") > 0

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a tier and wait for its end; returns the exit status."""
        process = self.processes[name]
        os.kill(process.pid, number)
        status = process.wait(timeout=30)
        if process.stdout is not None:
            process.stdout.close()
        return status

    def freeze(self, name: str) -> None:
        os.kill(self.processes[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.kill(self.processes[name].pid, signal.SIGCONT)


@contextmanager
def running(system: System) -> Iterator[System]:
    """All tiers of a system, upstream first; whatever is left of them ends with the block."""
    try:
        for name in reversed(system.ops):
            system.start(name)
        yield system
    finally:
        for name, process in system.processes.items():
            if process.poll() is None:
                system.kill(name)


def wait_for(condition: object, what: str, alive: object = None, seconds: float = START_S) -> float:
    """Poll until `condition()`; returns the seconds it took."""
    assert callable(condition)
    started = time.monotonic()
    while not condition():
        if callable(alive):
            assert alive(), f"the process ended while waiting for {what}"
        assert time.monotonic() - started < seconds, f"waited {seconds} s in vain for {what}"
        time.sleep(0.02)
    return time.monotonic() - started
