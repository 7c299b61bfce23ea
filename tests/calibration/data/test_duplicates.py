import numpy as np
import pytest

from calibration.data.duplicates import refuse_shared, shared_rows, without_shared
from calibration.data.examples import Examples
from common.errors import ConfigError


def rows(*values: int) -> Examples:
    return Examples(inputs={"x": np.array(values)[:, None]}, labels_N=np.arange(len(values)), sha256={})


def test_train_rows_that_are_test_rows_are_refused_with_the_first_pair() -> None:
    refuse_shared(rows(1, 2, 3), rows(4, 5), "it")
    with pytest.raises(ConfigError, match=r"it: 3 train rows are equal to a test row, train row 1 to test row 0 first"):
        refuse_shared(rows(1, 2, 3, 2), rows(2, 3, 2), "it")
    with pytest.raises(ConfigError, match=r"1 train row is equal .*data\.duplicates: drop leaves such rows out"):
        refuse_shared(rows(1, 2), rows(2), "it")


def test_they_can_be_left_out_of_training() -> None:
    assert shared_rows(rows(1, 2, 3, 2), rows(3, 2)) == [(1, 1), (2, 0), (3, 1)]
    left = without_shared(rows(1, 2, 3, 2), rows(3, 2), "it")
    assert left.inputs["x"].ravel().tolist() == [1] and left.labels_N.tolist() == [0]
    same = rows(1, 2)
    assert without_shared(same, rows(9), "it") is same
    with pytest.raises(ConfigError, match="every train row is a test row"):
        without_shared(rows(1, 1), rows(1), "it")
