from pathlib import Path

import pytest

from calibration.calibrate import calibrate
from calibration.guarantee_figures import HEADER
from results import guarantee
from results.__main__ import main
from results.runs import Settings
from results.store import Store
from tests.synthetic import write_data, write_tiny

Captured = pytest.CaptureFixture[str]


def test_the_page_is_made_from_what_is_stored(tmp_path: Path, capsys: Captured) -> None:
    data = write_data(tmp_path / "data")
    calibrate(write_tiny(tmp_path / "bundles" / "mnist-lenet"), data)
    settings = Settings(data_dir=data, work=tmp_path)
    store = Store(tmp_path / "raw" / "guarantee.json")
    guarantee.train(store, settings, bundles=tmp_path / "bundles", redraws=50)
    assert list(store.steps()) == ["mnist-lenet, noise 0", "mnist-lenet, noise 30"]

    page = tmp_path / "results.md"
    page.write_text("# Results\n\nBefore.\n\n<!-- begin guarantee -->\nstale\n<!-- end guarantee -->\n\nAfter.\n")
    said = capsys.readouterr().out
    assert main(["guarantee", "--do", "page", "--raw", str(tmp_path / "raw"), "--page", str(page)]) == 0
    text = page.read_text()
    assert "stale" not in text and HEADER in text and "50 redraws" in text
    assert text.startswith("# Results\n\nBefore.\n\n<!-- begin") and text.endswith("<!-- end guarantee -->\n\nAfter.\n")
    assert [one for one in text.splitlines() if one.startswith("| tiny")] == [
        one for one in said.splitlines() if one.startswith("| tiny")
    ]


def test_a_mistake_is_one_sentence(tmp_path: Path, capsys: Captured) -> None:
    options = ["--data-dir", str(tmp_path), "--raw", str(tmp_path / "raw"), "--page", str(tmp_path / "page.md")]
    assert main(["guarantee", *options]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("results: ") and captured.err.count("\n") == 1
    assert not (tmp_path / "page.md").exists()
