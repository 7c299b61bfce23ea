from typing import Any

import numpy as np
import pytest

from calibration.data.checks import checked_groups, checked_inputs, checked_labels, plain_array, same_length
from common.errors import ConfigError


def test_numbers_become_what_a_bundle_knows() -> None:
    arrays = {
        "a": np.zeros((2, 3)),
        "b": np.zeros(2, np.uint16),
        "c": np.zeros((2, 1), ">f4"),
        "d": np.zeros((2, 2), np.uint8),
        "e": np.zeros((2, 2), np.int32),
    }
    found = checked_inputs(arrays, "it")
    assert {name: array.dtype.name for name, array in found.items()} == {
        "a": "float32", "b": "int64", "c": "float32", "d": "uint8", "e": "int32"
    }  # fmt: skip
    assert all(array.dtype.isnative for array in found.values())
    assert found["d"] is arrays["d"] or np.shares_memory(found["d"], arrays["d"])  # bytes are not copied


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("x", np.array([[0.0, 1.0], [2.0, np.nan]]), r"it: x holds NaN in row 1 at \[1\]"),
        ("x", np.array([0.0, np.inf], np.float16), "it: x holds infinity in row 1"),
        ("x", np.array([[1e300]]), "it: x, as float32, holds infinity in row 0"),
        ("x", np.array(["a", "b"]), r"it: x holds text\..*data\.ignore"),
        ("x", np.array([1.5 + 2j, 1.0]), r"x is complex128\. A network takes real numbers"),
        ("x", np.array(["2026-01-01", "2026-01-02"], "datetime64[D]"), r"x is datetime64\[D\]\. A network takes real"),
        ("x", np.array(3.0), "it: x is a single number"),
        ("x", np.zeros((2, 0)), r"it: x has rows of shape \[0\], which hold nothing"),
        ("x y", np.zeros(2), "'x y' cannot name an input"),
        ("x", np.array([2**63], np.uint64), "too large for int64"),
    ],
)
def test_inputs_that_are_refused(name: str, array: Any, said: str) -> None:
    with np.errstate(over="ignore"), pytest.raises(ConfigError, match=said):
        checked_inputs({name: array}, "it")
    with pytest.raises(ConfigError, match="it holds labels but no input"):
        checked_inputs({}, "it")


def test_a_value_that_is_not_finite_is_found_in_any_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibration.data.checks._CHUNK", 4)
    array = np.zeros((9, 2), np.float32)
    array[7, 1] = -np.inf
    with pytest.raises(ConfigError, match=r"infinity in row 7 at \[1\]"):
        checked_inputs({"x": array}, "it")


@pytest.mark.parametrize(
    ("labels", "classes", "numbers", "names"),
    [
        ([2, 0, 1], (), [2, 0, 1], ()),
        ([[2], [0]], (), [2, 0], ()),
        ([1.0, 0.0], (), [1, 0], ()),
        ([True, False], (), [1, 0], ()),
        (["3", "10"], (), [3, 10], ()),
        (["cat", " ant", "cat "], (), [1, 0, 1], ("ant", "cat")),
        (["cat", "ant"], ("cat", "bee", "ant"), [0, 2], ("cat", "bee", "ant")),
        ([1, 0], ("cat", "bee"), [1, 0], ("cat", "bee")),
    ],
)
def test_labels_are_numbers_or_names(labels: Any, classes: Any, numbers: list[int], names: Any) -> None:
    found_N, found = checked_labels(np.array(labels), classes, "the labels")
    assert found_N.tolist() == numbers and found_N.dtype == np.int64 and found == names


@pytest.mark.parametrize(
    ("labels", "classes", "said"),
    [
        ([0.0, 0.5], (), r"labels hold 0\.5 in row 1\. Labels must be whole numbers"),
        ([0.0, np.nan], (), r"labels hold nan in row 1\. Labels must be whole numbers"),
        ([0, -1], (), r"labels hold label -1 in row 1\. Labels are numbered from 0"),
        ([0, 2], ("a", "b"), r"labels hold label 2 in row 1\. There are 2 classes, numbered from 0"),
        (["a", "c"], ("a", "b"), r"labels hold label 'c' in row 1\. The classes are a, b"),
        (["a", " "], (), "labels hold an empty label in row 1"),
        ([[0, 1], [1, 0]], (), r"have shape \[2, 2\]\. It must have one label per row"),
    ],
)
def test_labels_that_are_refused(labels: Any, classes: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        checked_labels(np.array(labels), classes, "the labels")


def test_arrays_must_be_plain_and_of_one_length() -> None:
    assert plain_array([[1, 2], [3, 4]], "x").shape == (2, 2)
    for value, said in (
        ([[1], [1, 2]], "x has rows that differ in length. Fill them up to one length, and give a mask"),
        (np.array([None]), "x is an array of object. It must hold numbers or text, and no Python objects"),
        ({"a": 1}, "x is an array of object"),
        (np.array([1j]), "x is an array of complex128"),
    ):
        with pytest.raises(ConfigError, match=said):
            plain_array(value, "x")
    assert same_length({"a": np.zeros(3), "b": np.zeros((3, 2))}, "it") == 3
    with pytest.raises(ConfigError, match="it has arrays of different length: a 3, b 2"):
        same_length({"a": np.zeros(3), "b": np.zeros(2)}, "it")
    with pytest.raises(ConfigError, match="it holds no rows"):
        same_length({"a": np.zeros((0, 2))}, "it")
    assert checked_groups(np.array(["p1", "p1"]), "groups").tolist() == ["p1", "p1"]
    for groups, said in ((np.zeros((2, 2)), "must have one value per row"), (np.array([np.nan]), "NaN or infinity")):
        with pytest.raises(ConfigError, match=said):
            checked_groups(groups, "groups")


def test_torch_tensors_are_arrays() -> None:
    torch = pytest.importorskip("torch")
    assert plain_array(torch.arange(4).reshape(2, 2), "x").tolist() == [[0, 1], [2, 3]]
    assert plain_array(torch.ones(2, requires_grad=True), "x").tolist() == [1, 1]
    with pytest.raises(ConfigError, match=r"x is a Tensor and no array: .*BFloat16\.$"):
        plain_array(torch.ones(2, dtype=torch.bfloat16), "x")
