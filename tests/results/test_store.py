from pathlib import Path

import numpy as np
import pytest

from results.page import table, write_section
from results.stats import over_seeds, paired_gap
from results.store import Store


def test_a_finished_step_is_not_measured_again(tmp_path: Path) -> None:
    said: list[str] = []
    store = Store(tmp_path / "raw" / "table.json", said.append)
    assert store.once("a", lambda: {"x": 1 / 3}) == {"x": 0.333333}
    again = Store(tmp_path / "raw" / "table.json", said.append)
    assert again.once("a", lambda: pytest.fail("measured again")) == {"x": 0.333333}
    assert said == ["table: a"]


def test_a_step_that_fails_leaves_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path / "table.json", lambda text: None)
    store.once("a", lambda: {"x": 1})
    with pytest.raises(ZeroDivisionError):
        store.once("b", lambda: {"x": 1 // 0})
    assert store.steps() == {"a": {"x": 1}}
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]


def test_two_runs_may_share_a_file(tmp_path: Path) -> None:
    one, other = (Store(tmp_path / "table.json", lambda text: None) for _ in range(2))

    def meanwhile() -> dict[str, int]:
        other.once("b", lambda: {"x": 2})
        return {"x": 1}

    one.once("a", meanwhile)
    assert one.steps() == {"a": {"x": 1}, "b": {"x": 2}}


def test_a_section_is_written_again_alone(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    write_section(page, "a", "one\n")
    write_section(page, "b", "two")
    write_section(page, "a", "three")
    assert page.read_text() == (
        "# Results\n\n<!-- begin a -->\nthree\n<!-- end a -->\n\n<!-- begin b -->\ntwo\n<!-- end b -->\n"
    )


def test_a_table_has_a_line_per_row() -> None:
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_mean_over_seeds_has_students_interval() -> None:
    found = over_seeds([99.0, 99.2, 99.4])
    assert found.mean == pytest.approx(99.2)
    assert found.half == pytest.approx(4.30265273 * 0.2 / 3**0.5)
    assert str(over_seeds([98.765])) == "98.76" or str(over_seeds([98.765])) == "98.77"


def test_a_paired_gap_counts_only_rows_that_differ() -> None:
    reference_N = np.array([True] * 900 + [False] * 100)
    right_N = reference_N.copy()
    right_N[:20], right_N[-10:] = False, True
    gap = paired_gap(right_N, reference_N)
    assert gap.gap == pytest.approx(0.01)
    assert gap.low < 0.01 < gap.upper < gap.high
    same = paired_gap(reference_N, reference_N)
    assert same.gap == 0.0 and same.upper > 0.0
