import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from common.serving.private_folder import PrivateFolder

KILLED = """
import os, socket
from common.serving.private_folder import PrivateFolder
folder = PrivateFolder().path
held = socket.socket(socket.AF_UNIX)
held.bind(str(folder / "grpc"))
print(folder, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_goes_and_what_is_held_stays(place: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], env={**os.environ, "TMPDIR": str(place)}, capture_output=True, text=True
    )
    left = Path(killed.stdout.strip())
    assert killed.returncode == -9 and (left / "grpc").is_socket() and left.parent == place
    first = PrivateFolder()
    assert list(place.iterdir()) == [first.path] and first.path.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(first.path / "grpc"))
        second = PrivateFolder()
        assert (first.path / "grpc").is_socket() and second.path.is_dir()
        second.remove()
        first.remove()
    first.remove()  # once more does nothing
    assert not list(place.iterdir())


def test_what_is_no_leftover_is_left_alone(place: Path) -> None:
    other = place / "offramp-sockets-of-mine"
    other.mkdir()
    (other / "notes").write_text("mine")
    (place / "offramp-sockets-link").symlink_to(other)
    PrivateFolder().remove()
    assert (other / "notes").read_text() == "mine" and len(list(place.iterdir())) == 2
