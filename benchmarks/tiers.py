"""Tiers of offramp as child processes: `offramp serve`, from a configuration made on the way."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.children import START_S, Child, free_port
from benchmarks.paths import BUILT, BUNDLE


class Tiers:
    """The tiers of one configuration, each started when it is wanted.

    Args:
        name: of the configuration file.
        stages: tier -> number of stages, from the device up.
        bundle: what they serve.
        options: tier -> further keys of its section.
        timeout_ms: how long each tier waits for its upstream.
        rest: port of the first tier's REST door; 0 for any.
    """

    def __init__(
        self,
        name: str,
        stages: Mapping[str, int | str],
        *,
        bundle: Path = BUNDLE,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        timeout_ms: int = 20_000,
        rest: int = 0,
    ) -> None:
        self.grpc = {tier: free_port() for tier in stages}
        self.ops = {tier: free_port() for tier in stages}
        self.rest = rest or free_port()
        sections: dict[str, dict[str, Any]] = {}
        for tier, count in stages.items():
            sections[tier] = {"stages": count, "ops": _loopback(self.ops[tier]), "grpc": _loopback(self.grpc[tier])}
            sections[tier] |= {"upstream_timeout_ms": timeout_ms, "drain_seconds": 1}
            sections[tier] |= (options or {}).get(tier, {})
        sections[next(iter(stages))]["rest"] = _loopback(self.rest)
        BUILT.mkdir(parents=True, exist_ok=True)
        self.config = BUILT / f"{name}.yaml"
        self.config.write_text(yaml.safe_dump({"bundle": str(bundle), "tiers": sections}, sort_keys=False))
        self.children: dict[str, Child] = {}

    def start(self, tier: str, *, wrap: Sequence[str] = ()) -> float:
        """Start a tier, behind a command such as a profiler; returns the seconds until it was ready."""
        log = BUILT / f"{self.config.stem}-{tier}.log"
        command = [*wrap, sys.executable, "-m", "offramp", "serve", tier, "--config", str(self.config)]
        child = self.children[tier] = Child(command, log=log)
        until = child.started + START_S
        while not self.ready(tier):
            if not child.alive or time.monotonic() > until:
                raise RuntimeError(f"{tier} did not become ready: {log.read_text()[-500:]}")
            time.sleep(0.005)
        return time.monotonic() - child.started

    def ready(self, tier: str) -> bool:
        """Whether its ops door says so."""
        try:
            with urllib.request.urlopen(f"http://{_loopback(self.ops[tier])}/ready", timeout=2) as reply:
                return bool(reply.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def metric(self, tier: str, name: str, **labels: str) -> float:
        """The sum over all samples of a metric that carry these labels."""
        with urllib.request.urlopen(f"http://{_loopback(self.ops[tier])}/metrics", timeout=5) as reply:
            text = reply.read().decode()
        total = 0.0
        for line in text.splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and all(f'{key}="{want}"' in head for key, want in labels.items()):
                total += float(value)
        return total

    def wait_until_up(self, tier: str) -> None:
        """Wait until a tier's upstream answers."""
        until = time.monotonic() + START_S
        while self.metric(tier, "offramp_upstream_state") < 1:
            if time.monotonic() > until:
                raise RuntimeError(f"{tier} did not find its upstream")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop all of them."""
        for child in self.children.values():
            child.stop()


def _loopback(port: int) -> str:
    return f"127.0.0.1:{port}"
