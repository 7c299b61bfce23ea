from typing import Any

import numpy as np
import pytest

from common.errors import Malformed, RequestError, TooLarge
from common.limits import Limits
from common.serving.admission import admit
from common.types import Array, Tensors
from tests.serving.doors import digits, manifest_of, texts

LIMITS = Limits(batch_rows=4)


def refused(doc: dict[str, Any], tensors: dict[str, Array], stage: int = 0) -> RequestError:
    with pytest.raises(RequestError) as caught:
        admit(manifest_of(doc), stage, tensors, LIMITS)
    return caught.value


def image(rows: int = 1, dtype: str = "float32") -> Array:
    return np.zeros((rows, 1, 28, 28), dtype)


def test_a_right_batch_passes_without_a_copy() -> None:
    x = image(3)
    assert admit(manifest_of(digits("float32")), 0, {"image": x}, LIMITS)["image"] is x


def test_foreign_byte_order_strides_and_alignment_are_put_right() -> None:
    raw = bytearray(1 + 2 * 784 * 4)
    odd = np.frombuffer(raw, ">f4", offset=1).reshape(2, 28, 28, 1).transpose(0, 3, 1, 2)
    odd[:] = np.arange(28)
    x = admit(manifest_of(digits("float32")), 0, {"image": odd}, LIMITS)["image"]
    assert x.flags.c_contiguous and x.flags.aligned and x.dtype == np.float32 and x.dtype.isnative
    assert (x == odd).all()


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (
            np.zeros((2, 28, 27), np.uint8),
            "Tensor 'image' has shape [2, 28, 27]. It must be [B, 1, 28, 28].",
        ),
        (np.zeros((), np.uint8), "Tensor 'image' has shape []. It must be [B, 1, 28, 28]."),
        (image(0), "The batch is empty. It must hold at least one row."),
        (image(1, "complex64"), "Tensor 'image' has dtype complex64. It must be uint8."),
        (image().astype(object), "Tensor 'image' has dtype object. It must be uint8."),
    ],
)
def test_shape_and_dtype(array: Array, sentence: str) -> None:
    error = refused(digits(), {"image": array})
    assert isinstance(error, Malformed) and str(error) == sentence


def test_a_cast_names_the_first_row_that_would_change() -> None:
    x = image(3)
    x[1, 0, 3, 4] = 7.5
    assert str(refused(digits(), {"image": x})) == (
        "Tensor 'image' holds numbers that uint8 cannot represent exactly, first in row 1. Send uint8."
    )
    x[1, 0, 3, 4] = 7
    assert admit(manifest_of(digits()), 0, {"image": x}, LIMITS)["image"].dtype == np.uint8


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_named(bad: float) -> None:
    x = image(3)
    x[2, 0, 0, 1] = bad
    error = refused(digits("float32"), {"image": x})
    assert (error.code, str(error)) == (
        "not_finite",
        "Row 2 of tensor 'image' holds NaN or infinity. Every number must be finite.",
    )


def test_too_many_rows() -> None:
    error = refused(digits("float32"), {"image": image(5)})
    assert isinstance(error, TooLarge) and str(error) == "The batch has 5 rows. At most 4 are accepted."


@pytest.mark.parametrize("names", [(), ("image", "other"), ("img",)])
def test_the_right_names(names: tuple[str, ...]) -> None:
    error = refused(digits(), {name: image() for name in names})
    listed = ", ".join(repr(name) for name in sorted(names)) or "none"
    assert str(error) == f"The tensors are {listed}. They must be 'image'."


def test_a_stage_beyond_the_bundle() -> None:
    assert str(refused(digits(), {}, stage=1)) == "start_stage is 1. It must lie between 0 and 0."


def tokens(ids: tuple[int, int], mask: tuple[int, int]) -> Tensors:
    return {"ids": np.ones(ids, np.int64), "mask": np.ones(mask, bool)}


def test_symbolic_sizes_are_padded_to_their_bucket() -> None:
    padded = admit(manifest_of(texts()), 0, tokens((2, 3), (2, 3)), LIMITS)
    assert padded["ids"].tolist() == [[1, 1, 1, 9]] * 2
    assert padded["mask"].tolist() == [[True, True, True, False]] * 2
    assert admit(manifest_of(texts()), 0, tokens((1, 5), (1, 5)), LIMITS)["ids"].shape == (1, 8)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (tokens((2, 3), (2, 4)), "Tensor 'mask' has shape [2, 4]. It must be [B, tokens] with tokens = 3."),
        (tokens((2, 3), (1, 3)), "Tensor 'mask' has 1 rows. It must have 2, as 'ids' has."),
        (tokens((2, 9), (2, 9)), "A row has 9 tokens. At most 8 are accepted."),
        (tokens((2, 0), (2, 0)), "Tensor 'ids' has shape [2, 0]. It must be [B, tokens]."),
    ],
)
def test_symbolic_sizes_must_agree(tensors: Tensors, sentence: str) -> None:
    assert str(refused(texts(), tensors)) == sentence


def test_bytes_that_are_no_booleans() -> None:
    mask = np.array([[0, 1, 2]], np.uint8).view(bool)
    error = refused(texts(), {"ids": np.ones((1, 3), np.int64), "mask": mask})
    assert str(error) == "Tensor 'mask' holds bytes other than 0 and 1. It must be bool."
