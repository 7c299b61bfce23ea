import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.version import VERSION
from offramp.cli import EXAMPLES, main

ROOT = Path(__file__).parent.parent.parent
COMMANDS = sorted(command.__name__ for command in EXAMPLES)


def test_the_commands_are_those_of_the_contract() -> None:
    wanted = ["build", "calibrate", "cuts", "evaluate", "health", "inspect", "load", "predict", "serve", "train", "up"]
    assert wanted == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"Example: offramp {command} \S", out)
    assert out.startswith(f"Usage: offramp {command}")


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
def test_every_command_tells_its_version(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--version"]) == 0
    assert capsys.readouterr().out == f"offramp {VERSION}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["sevre"],
        ["serve"],
        ["serve", "edge"],
        ["inspect"],
        ["load", "--rate", "-1"],
        ["load", "--rate", "fast"],
        ["predict"],
        ["health", "--nonsense"],
        ["load", "--body", "xml"],
        ["health", "nowhere"],
        ["health", "ftp://h:1"],
        ["serve", "edge", "--config", "absent.yaml"],
        ["up", "--config", "absent.yaml"],
        ["predict", "absent.png"],
        ["predict", "pyproject.toml"],
        ["load", "--inputs", "absent"],
        ["build", "absent.yaml", "--out", "x"],
    ],
)
def test_wrong_use_is_exit_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    *usage, sentence = captured.err.strip().splitlines()
    assert re.fullmatch(r"offramp: .+\.|Error: .+", sentence)
    assert all(line.startswith(("Usage: ", "Try ")) or not line for line in usage)


def test_a_mistake_has_no_traceback(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "offramp", "inspect", str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == f"offramp: {tmp_path / 'manifest.json'} is missing.\n"


def test_a_foreign_package_of_the_same_name_is_said(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").touch()
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path}
    script = tmp_path / "offramp"
    script.write_text("from offramp.cli import main\n")
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, cwd="/")
    assert found.returncode == 1
    assert found.stderr.startswith("offramp: offramp needs its own package 'common'")
    assert str(tmp_path / "common") in found.stderr
    assert found.stderr.count("\n") == 1
    imported = subprocess.run(
        [sys.executable, "-c", "import offramp"], capture_output=True, text=True, env=environment, cwd="/"
    )
    assert imported.returncode == 1
    assert imported.stderr.splitlines()[-1].startswith("ImportError: offramp needs its own package 'common'")


HEAVY = ("torch", "onnxruntime", "onnx", "numpy", "grpc", "fastapi", "httpx", "rich", "yaml", "pydantic")


@pytest.mark.parametrize("module", ["offramp", "offramp.cli", "offramp.probe"])
def test_a_start_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout == "[]\n"


def test_public_names_are_those_that_are_documented() -> None:
    import offramp

    assert offramp.__doc__ is not None
    for name in offramp.__all__:
        assert name in dir(offramp)
        assert re.search(rf"\b{name}\b", offramp.__doc__)
        assert getattr(offramp, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Client'"):
        _ = offramp.Client


def test_only_names_of_the_build_wing_import_torch() -> None:
    code = (
        "import sys, offramp; offramp.load_bundle, offramp.calibrate, offramp.evaluate; print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout == "False\n"
