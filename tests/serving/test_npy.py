import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.errors import Malformed
from common.manifest import TensorSpec
from common.serving.npy import read_npy

SPEC = TensorSpec(name="x", dtype="float32", shape=(2, 3))


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), **options)
    return file.getvalue()


def refused(data: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        read_npy(data, SPEC)
    return str(caught.value)


@given(
    st.sampled_from("? u1 >u2 <i4 >i8 <f2 >f4 <f8".split()),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([(1, 0), (2, 0)]),
    st.data(),
)
def test_what_is_saved_is_what_is_read(
    dtype: str, rows: int, fortran: bool, version: tuple[int, int], data: st.DataObject
) -> None:
    x = data.draw(hnp.arrays(dtype, (rows, 2, 3)))
    batch = read_npy(saved(np.asfortranarray(x) if fortran else x, version=version), SPEC)
    assert batch.dtype == x.dtype and np.array_equal(batch, x, equal_nan=x.dtype.kind == "f")
    assert batch.flags.c_contiguous


def test_a_single_row_is_a_batch_of_one() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert read_npy(saved(x), SPEC).tolist() == [x.tolist()]


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(head: bytes, data: bytes) -> None:
    for raw in (head, b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data):
        try:
            read_npy(raw, SPEC)
        except Malformed:
            continue


def with_head(head: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + data


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "The body is not an npy file."),
        (b"PK\x03\x04" + bytes(40), "The body is not an npy file."),
        (saved(np.zeros((1, 2, 3)), version=(3, 0)), "The body has npy version 3.0. It must be 1.0 or 2.0."),
        (saved(np.zeros((1, 2, 3)))[:60], "The body is an npy file whose head is cut off or longer than 4096 bytes."),
        (saved(np.zeros((1, 2, 3), "f4")) + b"!", "The body declares [1, 2, 3] of float32, 24 bytes. It holds 25."),
        (saved(np.zeros((1, 2, 3), "f4"))[:-1], "The body declares [1, 2, 3] of float32, 24 bytes. It holds 23."),
        (
            with_head("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627775, 1099511627775, 2)}"),
            "The body declares [1099511627775, 1099511627775, 2] of float64, 19342813113798882423210000 bytes. "
            "It holds 0.",
        ),
        (saved(np.zeros(6, "f4")), "The body has shape [6]. It must be [2, 3] or [B, 2, 3]."),
    ],
)
def test_length_and_shape(data: bytes, sentence: str) -> None:
    assert refused(data) == sentence


def test_pickles_and_structures_are_refused() -> None:
    sentence = "its dtype must be bool, an integer of 8 to 64 bits or a float of 16 to 64 bits"
    for odd in (np.array([{"a": 1}], object), np.zeros(2, [("a", "f4")]), np.zeros(2, "c8"), np.array(["a"])):
        assert refused(saved(odd)).endswith(f"{sentence}.")


@pytest.mark.parametrize(
    "head",
    [
        "(" * 300,
        "{'descr': '<f4'}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': [1]}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
        "__import__('os')",
        "{[]: 1}",
    ],
)
def test_odd_heads(head: str) -> None:
    assert refused(with_head(head)).startswith("The body is not an npy file that is accepted: ")
