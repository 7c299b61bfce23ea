from typing import Any

import numpy as np
import pytest

from calibration.data.rows import rows_of
from calibration.settings import DataSettings
from common.errors import ConfigError

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1])


def settings(**keys: Any) -> DataSettings:
    return DataSettings(dataset="./d.npz", **keys)


def test_one_set_of_rows() -> None:
    given = rows_of({"x": X, "mask": X > 3, "y": Y, "group": np.array(list("aabbcc"))}, settings(), "it")
    assert given.test is None and set(given.train.inputs) == {"x", "mask"}
    assert given.train.groups_N is not None and given.train.groups_N.tolist() == list("aabbcc")


@pytest.mark.parametrize("name", ["label", "labels", "y", "target", "targets", "class"])
def test_usual_names_of_labels(name: str) -> None:
    assert rows_of({"x": X, name: Y}, settings(), "it").train.labels_N.tolist() == Y.tolist()


def test_names_can_be_given() -> None:
    arrays = {"x": X, "z": X, "truth": Y, "person": Y, "note": np.array(list("abcdef")), "y": Y}
    found = rows_of(arrays, settings(label="truth", group="person", ignore="note", input=["z"]), "it").train
    assert set(found.inputs) == {"z"} and found.groups_N is not None


def test_train_and_test_by_name() -> None:
    arrays = {"x_train": X, "y_train": np.array(list("ababab")), "x_test": X[:2] + 50, "y_test": np.array(["b", "b"])}
    given = rows_of(arrays, settings(), "it")
    assert given.test is not None and set(given.train.inputs) == {"x"}
    assert given.train.classes == given.test.classes == ("a", "b")
    assert given.test.labels_N.tolist() == [1, 1]  # as the train rows number them
    del arrays["x_test"], arrays["y_test"]
    assert rows_of(arrays, settings(), "it").test is None


def test_train_and_test_by_an_array() -> None:
    split = np.array(["train", "test", "train", "test", "train", "train"])
    given = rows_of({"x": X, "y": Y, "split": split, "classes": np.array(["no", "yes"])}, settings(), "it")
    assert given.test is not None and len(given.train) == 4 and given.test.labels_N.tolist() == [1, 1]
    assert given.train.classes == ("no", "yes")


@pytest.mark.parametrize(
    ("arrays", "keys", "said"),
    [
        ({"x": X}, {}, r"it has no labels: it has x\. data\.label names"),
        ({"x": X, "y": Y}, {"label": "z"}, "it has no array 'z': it has x, y"),
        ({"x": X, "y": Y}, {"group": "z"}, r"data\.group is 'z'\. it has x, y"),
        ({"x": X, "y": Y}, {"input": "z"}, r"data\.input names 'z'\. it has x"),
        ({"x": X, "y": Y}, {"ignore": "z"}, r"data\.ignore names 'z'\. it has x, y"),
        ({"x": X, "y": Y[:5]}, {}, "it has arrays of different length: x 6, y 5"),
        ({"x": X, "y": Y, "split": np.array(["train"] * 6)}, {}, "split says test for no row"),
        ({"x": X, "y": Y, "split": Y}, {}, "split holds 0 in row 0. It must say train or test"),
        ({"x": X, "y": Y, "split": np.array(["train"] * 5 + ["val"])}, {}, "split holds val in row 5"),
        ({"x_train": X, "y_train": Y, "x_val": X}, {}, "x_val belongs to no split"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :1], "y_test": Y}, {}, r"x is float32 \[1\]\. In the train rows"),
        ({"x_train": X, "y_train": Y, "z_test": X, "y_test": Y}, {}, "lacks the input 'x'"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y.astype(str) + "b"}, {}, "labels of another kind"),
        ({"x": X, "y": Y, "classes": np.array(["a", "a"])}, {}, "classes names 'a' twice"),
    ],
)
def test_what_is_refused(arrays: dict[str, Any], keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        rows_of(arrays, settings(**keys), "it")
    assert "\n" not in str(caught.value)
