import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_committed_stubs_are_those_of_the_proto(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable}
    subprocess.run([ROOT / "scripts" / "protos", tmp_path], check=True, env=environment)
    for name in ("tier_pb2.py", "tier_pb2.pyi", "tier_pb2_grpc.py"):
        committed = (ROOT / "protos" / name).read_text()
        assert (tmp_path / "protos" / name).read_text() == committed, f"protos/{name} has drifted: run scripts/protos"
