"""Properties of the division: nothing lost, nothing twice, units whole, sizes near to what was asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.data.division import as_rows, divided, units_of
from calibration.data.examples import Examples
from common.errors import ConfigError


def examples(values: list[int], groups: list[object] | None = None) -> Examples:
    array = np.array(values)[:, None]
    return Examples(
        inputs={"x": array},
        labels_N=np.zeros(len(array), np.int64),
        sha256={},
        groups_N=None if groups is None else np.array(groups),
    )


def generator() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(3))


def test_rows_that_are_all_different_are_divided_by_the_plain_permutation() -> None:
    """So that a bundle made before units were known keeps its splits."""
    found = divided(units_of(examples(list(range(50)))), {"validation": 5, "tune": 7}, generator(), "it")
    order = generator().permutation(50)
    assert found["validation"].tolist() == sorted(order[:5]) and found["tune"].tolist() == sorted(order[5:12])
    assert found["rest"].tolist() == sorted(order[12:])


def test_equal_rows_and_groups_are_one_unit_over_any_number_of_steps() -> None:
    assert units_of(examples([4, 5, 4, 6])).tolist() == [0, 1, 0, 2]
    assert units_of(examples([1, 2, 3, 4], ["a", "b", "a", "b"])).tolist() == [0, 1, 0, 1]
    # a-b share a row, b-c share another: all three belong together
    chained = examples([1, 2, 2, 3, 3, 4, 5], ["a", "a", "b", "b", "c", "c", "d"])
    assert units_of(chained).tolist() == [0, 0, 0, 0, 0, 0, 1]


def test_a_row_is_its_bytes_over_all_inputs() -> None:
    rows = examples([1, 1, 1])
    both = Examples(inputs={**rows.inputs, "mask": np.array([[1], [0], [1]])}, labels_N=rows.labels_N, sha256={})
    assert units_of(both).tolist() == [0, 1, 0]


@given(
    groups=st.lists(st.integers(0, 12), min_size=20, max_size=120),
    shares=st.tuples(*[st.floats(0.05, 0.25)] * 3),
    seed=st.integers(0, 9),
)
def test_every_row_is_in_one_split_and_no_group_in_two(groups: list[int], shares: tuple[float, ...], seed: int) -> None:
    units = np.unique(groups, return_inverse=True)[1]
    wanted = {f"s{k}": max(1, int(share * len(groups))) for k, share in enumerate(shares)}
    try:
        found = divided(units, wanted, np.random.Generator(np.random.PCG64(seed)), "it")
    except ConfigError as error:
        assert "too few" in str(error)
        return
    rows = np.concatenate(list(found.values()))
    assert sorted(rows) == list(range(len(groups)))
    owners = [set(units[part]) for part in found.values()]
    assert sum(map(len, owners)) == len(set(units)) and all(map(len, owners))
    largest = np.bincount(units).max()
    assert all(len(found[name]) <= size + largest for name, size in wanted.items())


def test_too_few_groups_or_rows_are_one_sentence() -> None:
    units = units_of(examples(list(range(8)), ["a"] * 4 + ["b"] * 4))
    with pytest.raises(ConfigError, match=r"it has 2 groups of rows that belong together .* too few for tune"):
        divided(units, {"validation": 3, "tune": 2, "certify": 1}, generator(), "it")
    with pytest.raises(
        ConfigError, match=r"data: validation and tune ask for 8 rows\. it has 8, and some must be left"
    ):
        divided(np.arange(8), {"validation": 4, "tune": 4}, generator(), "it")


def test_sizes_are_rows_or_shares() -> None:
    assert as_rows("tune", 30, 100, "it") == 30 and as_rows("tune", 0.25, 99, "it") == 25
    with pytest.raises(ConfigError, match=r"data\.tune is 0\.001\. Of the 100 rows of it that is not one"):
        as_rows("tune", 0.001, 100, "it")
