"""Every server that answers the same images over HTTP: offramp's device, its floor, and the peers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bodies import Inputs, requests
from benchmarks.children import Child, free_port, wait_for_port
from benchmarks.http_load import ask_once
from benchmarks.paths import BUILT, HERE, PEERS
from benchmarks.tiers import Tiers


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A server, not yet started.

    Attributes:
        forms: how it wants a JSON body and an array file; see bodies.FORMS.
        start: starts it on a port.
        python: the interpreter of its environment.
        package: whose version tells what it is; empty for this checkout.
    """

    name: str
    about: str
    json: str
    npy: str
    start: Callable[[int], Child]
    several: bool = False  # processes, which share the cores
    python: Path = Path(sys.executable)
    package: str = ""

    @property
    def installed(self) -> bool:
        """Whether its environment is there."""
        return self.python.exists()

    def version(self) -> str:
        """The version of its package."""
        if not self.package:
            return ""
        code = f"from importlib.metadata import version; print(version({self.package!r}))"
        return subprocess.run([self.python, "-c", code], capture_output=True, text=True).stdout.strip()


def _floor(port: int) -> Child:
    return Child([sys.executable, "-m", "benchmarks.floors.asgi", str(port)], log=_log("floor"))


def _device(port: int, workers: int = 1) -> Child:
    """The device of three tiers whose upstream does not run: local answers need none."""
    stages: dict[str, int | str] = {"device": 1, "edge": 1, "cloud": "rest"}
    tiers = Tiers(f"local-{workers}", stages, rest=port, options={"device": {"workers": workers}})
    tiers.start("device")
    return tiers.children["device"]


def _peer(name: str, package: str, about: str, forms: tuple[str, str], batch: int = 1, wait_ms: int = 0, **env: str):
    python = PEERS / package / "bin" / "python"

    def start(port: int) -> Child:
        environ = {"BENCH_PORT": str(port), "BENCH_BATCH": str(batch), "BENCH_WAIT_MS": str(wait_ms), **env}
        script = HERE / "peers" / f"{package}_server.py"
        return Child([str(python), str(script)], environ=environ, log=_log(name))

    return Contender(
        name=name, about=about, json=forms[0], npy=forms[1], start=start, several=True, python=python, package=package
    )


def _log(name: str) -> Path:
    BUILT.mkdir(parents=True, exist_ok=True)
    return BUILT / f"{name.replace(' ', '-').replace(',', '')}.log"


_MOSEC = ("mosec-json", "mosec-npy")
_LIT = ("json", "multipart-npy")
CONTENDERS = (
    Contender(
        name="floor", about="bare ASGI on uvicorn + orjson + onnxruntime, one run per request", json="json", npy="npy",
        start=_floor,
    ),
    Contender(name="offramp", about="device tier, exit 0 accepts", json="json", npy="npy", start=_device),
    Contender(
        name="offramp 2 workers", about="the same with `workers: 2`", json="json", npy="npy",
        start=lambda port: _device(port, 2), several=True,
    ),
    _peer("mosec", "mosec", "one worker; orjson instead of its own json", _MOSEC),
    _peer("mosec batching", "mosec", "the same, up to 16 rows, waits at most 1 ms: its best", _MOSEC, 16, 1),
    _peer("mosec as shipped", "mosec", "one worker with its own json", _MOSEC, BENCH_JSON="shipped"),
    _peer("LitServe", "litserve", "one worker, fast queue; array files in multipart", _LIT),
    _peer("LitServe batching", "litserve", "the same, up to 32 rows, waits at most 1 ms", _LIT, 32, 1),
    _peer(
        "KServe", "kserve", "one worker; v1 JSON, v2 binary tensors; its batcher is no part of the package",
        ("kserve-json", "kserve-binary"),
    ),
)  # fmt: skip


class Running:
    """A started contender, paused while others are measured.

    Raises:
        RuntimeError: when it does not start, or does not answer as the bare session does.
    """

    def __init__(self, contender: Contender, inputs: Inputs) -> None:
        self.contender = contender
        self.port = free_port()
        self.child = contender.start(self.port)
        try:
            wait_for_port(self.child, self.port)
            self.check(inputs)
        except BaseException:
            self.child.stop()
            raise
        self.child.pause()

    def check(self, inputs: Inputs) -> None:
        """Every kind of body gets the label that the bare session gives."""
        for form in (self.contender.json, self.contender.npy):
            for request, label in list(zip(requests(form, inputs), inputs.labels, strict=True))[:8]:
                found = label_of(ask_once(self.port, request))
                if found != label:
                    raise RuntimeError(f"{self.contender.name} says {found} to {form}. It must say {label}.")


def label_of(reply: dict) -> int:
    """The label in any contender's reply."""
    if "answers" in reply:
        return int(reply["answers"][0]["label"])
    if "predictions" in reply:
        return int(reply["predictions"][0]["label"])
    if "outputs" in reply:
        return int(reply["outputs"][0]["data"][0])
    return int(reply["label"])
