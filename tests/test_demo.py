import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DEMO = [sys.executable, str(ROOT / "scripts" / "demo.py")]
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}


def readme_block() -> str:
    """What the README says that the demo prints."""
    return (ROOT / "README.md").read_text().split("<!-- demo -->\n```text\n")[1].split("```")[0]


def shape(text: str) -> list[str]:
    """The lines with every figure made the same, without the first, which tells one environment from another."""
    figures = re.sub(r"\d[\d,.]*%?|(?<=│) +- +(?=│)", " # ", text.replace("│", "││"))
    return [" ".join(line.split()) for line in figures.splitlines()[1:] if "━" not in line and "──" not in line]


def test_the_demo_ends_well_and_its_table_adds_up(tmp_path: Path) -> None:
    found = subprocess.run(DEMO, capture_output=True, text=True, cwd=tmp_path, env=ENVIRON)
    assert (found.returncode, found.stderr) == (0, ""), found.stdout
    answers = {name: int(re.findall(rf"│ {name} +│ +(\d+) │", found.stdout)[0]) for name in ("device", "edge", "cloud")}
    assert sum(answers.values()) == 256
    assert answers["device"] >= 0.9 * 256
    assert shape(found.stdout) == shape(readme_block()), "the README shows another demo: run scripts/readme.py"
    assert "every answer says that it is degraded: upstream_unavailable 256" in found.stdout


def test_an_interrupted_demo_leaves_nothing_behind() -> None:
    demo = subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRON)
    assert demo.stdout is not None
    demo.stdout.readline()
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children")
    while not (pids := children.read_text().split()):
        assert demo.poll() is None
    demo.send_signal(signal.SIGTERM)
    _, said = demo.communicate(timeout=60)
    assert (demo.returncode, said) == (1, "demo: interrupted; everything is stopped.\n")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
