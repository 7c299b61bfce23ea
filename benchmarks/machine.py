"""What the numbers were measured on: processor, cores, kernel, versions, and how busy the machine was."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("grpcio", "numpy", "onnxruntime", "orjson", "protobuf", "uvicorn", "uvloop", "httptools", "zstandard")


def machine() -> dict[str, Any]:
    """The machine and this environment; no names, no paths."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": versions(_PACKAGES),
        "offramp": _commit(),
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of packages; those that are not here are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def load_average() -> float:
    """Processes that ran or wanted to, over the last minute."""
    return round(os.getloadavg()[0], 2)


def _cpu() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    keys = ("model name", "cpu family", "model")
    numbers = {key: re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE) for key in keys}
    if not numbers["model name"]:
        return platform.processor() or platform.machine()
    name = numbers["model name"][1].strip()
    family, model = numbers["cpu family"], numbers["model"]
    return f"{name}, family {family[1]}, model {model[1]}" if family and model else name


def _commit() -> str:
    """The commit that was measured; marked where the sources differ from it."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        rooms = ["common", "device", "edge", "cloud", "offramp", "protos"]
        changed = subprocess.run(["git", "status", "--porcelain", "--", *rooms], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
