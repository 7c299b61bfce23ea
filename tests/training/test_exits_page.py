"""What docs/exits.md shows is what comes out."""

import re
from pathlib import Path

import pytest

from offramp.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "exits.md").read_text()


def test_the_list_of_cuts_is_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = re.search(r"```python\n(.*?)```", PAGE, re.S)
    shown = re.search(r"<!-- cuts -->\n```text\n(.*?)```", PAGE, re.S)
    assert code is not None and shown is not None
    (tmp_path / "my_model.py").write_text(code[1])
    monkeypatch.chdir(tmp_path)
    assert main(["cuts", "./my_model.py:build", "--example", "3x32x32"]) == 0
    assert capsys.readouterr().out.split() == shown[1].split()


def test_a_mistake_is_a_sentence_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cuts", f"{tmp_path}/absent.py:build", "--example", "3x32x32"]) == 2
    assert capsys.readouterr().err == f"offramp: {tmp_path}/absent.py cannot be read: there is no such file.\n"
