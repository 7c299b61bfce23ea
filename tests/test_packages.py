"""What is installed is what is there: a package that pyproject.toml forgets is missing in every wheel and image."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("calibration", "cloud", "common", "device", "edge", "offramp", "protos", "training")


def test_every_package_is_listed() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = document["tool"]["setuptools"]["packages"]
    found = {".".join(file.parent.relative_to(ROOT).parts) for room in ROOMS for file in (ROOT / room).rglob("*.py")}
    assert sorted(found) == listed
