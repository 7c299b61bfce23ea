import numpy as np
import pytest

from common.errors import Malformed
from common.manifest import TensorSpec
from common.serving.known_files import KnownFiles
from common.types import Array
from tests.serving.test_npy import saved

ROWS = np.arange(12).reshape(2, 2, 3)


def spec(dtype: str) -> TensorSpec:
    return TensorSpec(name="x", dtype=dtype, shape=(2, 3))


def inside(file: bytes, dtype: str, shape: tuple[int, ...], offset: int = 128) -> Array:
    return np.ndarray(shape, dtype, file, offset)


def learnt(file: bytes, batch: Array, dtype: str) -> KnownFiles:
    files = KnownFiles(spec(dtype))
    files.learn(file, batch)
    return files


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "bool"])
def test_a_head_is_known_again_with_other_numbers(dtype: str) -> None:
    file, other = saved(ROWS.astype(dtype)), (ROWS[::-1] % 2).astype(dtype)
    found = learnt(file, inside(file, dtype, (2, 2, 3)), dtype).find(saved(other))
    assert found is not None and found.dtype == dtype and found.tolist() == other.tolist()


def test_what_has_another_head_or_length_is_parsed() -> None:
    file = saved(ROWS.astype("u1"))
    files = learnt(file, inside(file, "u1", (2, 2, 3)), "uint8")
    for data in (b"", file[:100], file[:-1], file + b"\0", saved(ROWS[:1].astype("u1")), saved(ROWS.astype("i1"))):
        assert files.find(data) is None


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_all_the_same(number: float) -> None:
    file = saved(ROWS.astype("f4"))
    files = learnt(file, inside(file, "f4", (2, 2, 3)), "float32")
    rows = ROWS.astype("f4")
    rows[1, 0, 2] = number
    with pytest.raises(Malformed, match="Row 1 of tensor 'x' holds NaN or infinity"):
        files.find(saved(rows))


def test_bytes_that_are_no_booleans_are_refused_all_the_same() -> None:
    file = saved(ROWS.astype("?"))
    files = learnt(file, inside(file, "?", (2, 2, 3)), "bool")
    with pytest.raises(Malformed, match="bytes other than 0 and 1"):
        files.find(file[:-1] + b"\2")


def test_only_arrays_that_are_the_file_itself_are_learnt() -> None:
    file = saved(ROWS.astype("u1"))
    batch = inside(file, "u1", (2, 2, 3))
    longer = file[:116] + b" " * 64 + file[116:]
    for data, array in ((file, batch.copy()), (file, batch[:1]), (longer, inside(longer, "u1", (2, 2, 3), 192))):
        assert len(learnt(data, array, "uint8")) == 0
    assert len(learnt(file, batch.view("i1"), "uint8")) == 0


def test_heads_are_bounded() -> None:
    files = KnownFiles(spec("uint8"))
    for rows in range(1, 200):
        file = saved(np.zeros((rows, 2, 3), "u1"))
        files.learn(file, inside(file, "u1", (rows, 2, 3)))
        assert len(files) <= 64
    assert files.find(file) is not None
