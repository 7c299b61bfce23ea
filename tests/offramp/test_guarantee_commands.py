import json
from pathlib import Path

import pytest

from common.bundle import Bundle
from offramp.cli import main
from tests.synthetic import write_data, write_tiny

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def test_a_guarantee_from_the_command_line(tmp_path: Path, data: Path, capsys: Captured) -> None:
    root = write_tiny(tmp_path / "tiny")
    wanted = ["--epsilon", "0.1", "--delta", "0.05", "--risk", "accuracy-gap", "--name", "safe"]
    assert main(["calibrate", str(root), "--data-dir", str(data), *wanted]) == 0
    captured = capsys.readouterr()
    assert "safe: On rows like those of the certify split, the accuracy lies at most 10 %" in captured.err
    assert main(["inspect", str(root), "--json"]) == 0
    paper = json.loads(capsys.readouterr().out)["operating_points"]["safe"]["guarantee"]
    assert (paper["risk"], paper["epsilon"], paper["delta"]) == ("accuracy-gap", 0.1, 0.05)
    assert main(["inspect", str(root)]) == 0
    assert "guarantee" in capsys.readouterr().out

    later = ["--epsilon", "0.3", "--delta", "0.05", "--risk", "accuracy-gap", "--name", "loose", "--from", "safe"]
    assert main(["calibrate", str(root), *later]) == 0
    assert capsys.readouterr().out == f"{root} now has digest {Bundle(root).digest}.\n"
    assert set(Bundle(root).manifest.operating_points) == {"default", "full", "safe", "loose"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--delta", "0.1"], "--delta belongs to a guarantee. Give --epsilon with it."),
        (["--name", "x"], "--name belongs to a guarantee"),
        (["--from", "full"], "--from takes thresholds for another --epsilon"),
        (["--epsilon", "1.5"], "epsilon is 1.5"),
        (["--epsilon", "0.1", "--delta", "0"], "delta is 0.0"),
        (["--epsilon", "0.1", "--risk", "luck"], "'disagreement' or 'accuracy-gap'"),
        (["--epsilon", "0.1", "--name", "no good"], "name is 'no good'"),
        (["--epsilon", "0.1", "--from", "default"], "'default' carries no certificate with a ladder"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, data: Path, capsys: Captured, options: list[str], said: str) -> None:
    root = write_tiny(tmp_path / "tiny")
    before = (root / "manifest.json").read_bytes()
    assert main(["calibrate", str(root), "--data-dir", str(data), *options]) in (1, 2)
    captured = capsys.readouterr()
    assert captured.out == "" and said in captured.err and captured.err.count("\n") == 1
    assert (root / "manifest.json").read_bytes() == before
