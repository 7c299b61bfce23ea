from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.serving.exact import exact_cast

DTYPES = "bool uint8 int8 int16 int32 int64 uint16 uint32 uint64 float16 float32 float64".split()


def as_python(value: Any) -> Any:
    return value.item()


@given(st.data(), st.sampled_from(DTYPES), st.sampled_from(DTYPES), st.sampled_from("<>"))
def test_only_equal_values_pass(data: st.DataObject, source: str, target: str, order: str) -> None:
    array = data.draw(hnp.arrays(np.dtype(source).newbyteorder(order), hnp.array_shapes(max_dims=2, max_side=4)))
    cast, wrong = exact_cast(array, np.dtype(target))
    assert cast.dtype == np.dtype(target) and cast.dtype.isnative
    bad = np.zeros(array.shape, bool) if wrong is None else wrong
    for index in np.ndindex(array.shape):
        before, after = array[index].item(), cast[index].item()
        if not bad[index]:
            assert before == after or (before != before and after != after)
        elif before == before:
            # what is refused is not in the target type: Python compares integers and floats exactly
            assert not representable(before, np.dtype(target))


def representable(value: Any, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "b":
        return value in (0, 1)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return value == value and abs(value) != np.inf and value == int(value) and info.min <= value <= info.max
    with np.errstate(over="ignore"):
        return bool(dtype.type(value).item() == value)


@pytest.mark.parametrize(
    ("value", "source", "target"),
    [
        (2**63 - 1, "int64", "float64"),  # a saturating cast back would hide it
        (2**64 - 1, "uint64", "float64"),
        (2.0**63, "float64", "int64"),
        (70000, "int32", "float16"),
        (0.1, "float64", "float32"),
        (7.5, "float32", "uint8"),
        (-1, "int8", "uint8"),
        (256.0, "float32", "uint8"),
        (2, "uint8", "bool"),
        (np.nan, "float32", "int32"),
    ],
)
def test_what_changes_is_marked(value: Any, source: str, target: str) -> None:
    _, wrong = exact_cast(np.array([0, value], source), np.dtype(target))
    assert wrong is not None and wrong.tolist() == [False, True]
