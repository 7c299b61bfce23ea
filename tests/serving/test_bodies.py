import io
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from PIL import Image

from common.errors import BundleError, RequestError, TooLarge, UnsupportedType
from common.images import JPEG, PNG
from common.limits import Limits
from common.serving.bodies import JSON, MULTIPART, NPY, Bodies, Parsed, check_point
from common.serving.options import Options
from common.types import Array
from tests.serving.doors import digits, document, manifest_of, texts

LIMITS = Limits(batch_rows=8, image_pixels=1000, request_pixels=2000)
DIGITS = Bodies(manifest_of(digits()), LIMITS)
FIELD = b'--b\r\ncontent-disposition: form-data; name="forward"\r\n\r\ntrue\r\n--b--\r\n'
RAMP = (np.arange(784) % 251).astype(np.uint8).reshape(1, 28, 28)


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(array: Array = RAMP[0], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def form(*files: tuple[bytes, str], **fields: str) -> tuple[bytes, str]:
    """A body as a real client writes it."""
    parts = [("files", ("name", data, media_type)) for data, media_type in files]
    request = httpx.Request("POST", "http://x", files=parts, data=fields)
    return request.read(), request.headers["content-type"]


def read(body: bytes, content_type: str, query: bytes = b"", bodies: Bodies = DIGITS) -> Parsed:
    return bodies.read(body, content_type, query)


def refused(body: bytes, content_type: str, query: bytes = b"", bodies: Bodies = DIGITS) -> RequestError:
    with pytest.raises(RequestError) as caught:
        bodies.read(body, content_type, query)
    return caught.value


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (orjson.dumps({"inputs": [RAMP.tolist()]}), "application/json"),
        (orjson.dumps({"inputs": [RAMP.tolist()]}), 'Application/JSON ; charset="UTF-8"'),
        (npy(RAMP), NPY),
        (npy(RAMP[None].astype(np.float64)), NPY),
        (png(), PNG),
        form((png(), PNG)),
        form((npy(RAMP), "application/octet-stream")),
    ],
)
def test_every_type_says_the_same(body: bytes, content_type: str) -> None:
    parsed = read(body, content_type, b"timeout_ms=7")
    assert parsed.rows == 1 and parsed.options == Options(timeout_ms=7.0)
    assert parsed.tensors["image"].dtype == np.uint8 and (parsed.tensors["image"][0] == RAMP).all()


def test_an_array_file_whose_head_is_known_says_the_same() -> None:
    bodies = Bodies(manifest_of(digits()), LIMITS)
    for number, query in enumerate((b"", b"", b"timeout_ms=7")):
        parsed = read(npy(RAMP + np.uint8(number)), NPY, query, bodies)
        assert parsed.rows == 1 and parsed.options == Options(timeout_ms=7.0 if query else None)
        assert (parsed.tensors["image"][0] == RAMP + np.uint8(number)).all()


def test_jpeg() -> None:
    seen = read(png(np.full((28, 28), 90, np.uint8), "JPEG"), JPEG).tensors["image"]
    assert seen.shape == (1, 1, 28, 28) and np.abs(seen.astype(int) - 90).max() <= 2


def test_files_keep_their_order() -> None:
    body, content_type = form(
        (png(), PNG), (npy(np.stack([RAMP * 0, RAMP * 0 + 5])), NPY), (png(RAMP[0][::-1].copy()), ""), forward="false"
    )
    parsed = read(body, content_type)
    assert parsed.rows == 4 and parsed.options == Options(forward=False)
    assert (parsed.tensors["image"][:, 0, 0, 1] == [1, 0, 5, RAMP[0, 27, 1]]).all()


@pytest.mark.parametrize(
    ("body", "content_type", "sentence"),
    [
        (b"", "", "The body has no content-type. It must be one of application/json, application/x-npy, "
         "multipart/form-data, image/png, image/jpeg."),
        (b"a=1", "application/x-www-form-urlencoded", "The body has type application/x-www-form-urlencoded. It must "),
        (b"{}", "application/json; charset=latin-1", "The body has charset latin-1. JSON must be utf-8."),
        (*form((b"GIF89a", "image/gif")), "files[0] has type image/gif. It must be one of application/x-npy, image/png,"),
        (*form((png(), PNG), (b"?", "application/octet-stream")), "files[1] has type application/octet-stream. It "),
        (*form((b"{}", JSON)), "files[0] has type application/json. It must be one of "),
    ],
)  # fmt: skip
def test_types(body: bytes, content_type: str, sentence: str) -> None:
    error = refused(body, content_type)
    assert isinstance(error, UnsupportedType) and str(error).startswith(sentence)


@pytest.mark.parametrize(
    ("body", "content_type", "sentence"),
    [
        (npy(np.zeros((3, 28, 27), np.uint8)), NPY, "Tensor 'image' has shape [1, 3, 28, 27]. It must be "),
        (npy(np.zeros((0, 1, 28, 28), np.uint8)), NPY, "The batch is empty. It must hold at least one row."),
        (npy(RAMP + 0.5), NPY, "Tensor 'image' holds numbers that uint8 cannot represent exactly, first in row 0. "),
        (b"not an image", PNG, "The body is not a PNG image."),
        (*form((png(), PNG), (png()[:70], PNG)), "files[1] is a damaged PNG image."),
        (*form((png(), JPEG)), "files[0] is not a JPEG image."),
        (
            *form((png(), PNG), (npy(np.zeros((1, 28, 27), np.uint8)), NPY)),
            "files[1]: Tensor 'image' has shape [1, 1, 28, 27]. It must be [B, 1, 28, 28].",
        ),
        (FIELD, "multipart/form-data; boundary=b", "The batch is empty. It must hold at least one row."),
        (*form((png(), PNG), forward="maybe"), 'forward is "maybe". It must be true or false.'),
    ],
)
def test_what_is_refused(body: bytes, content_type: str, sentence: str) -> None:
    assert str(refused(body, content_type)).startswith(sentence)


def test_options_stand_in_one_place() -> None:
    body, content_type = form((png(), PNG), forward="true")
    assert str(refused(body, content_type, b"forward=true")) == "forward is given more than once."
    body = orjson.dumps({"inputs": [RAMP.tolist()], "forward": True})
    assert str(refused(body, JSON, b"forward=true")) == "forward is given more than once."


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([npy(np.zeros((5, 1, 28, 28), np.uint8))] * 2, "The batch has 10 rows. At most 8 are accepted."),
        ([png(np.zeros((25, 41), np.uint8))], "files[0] has 41 x 25 pixels. At most 1000 are accepted."),
        ([png(np.zeros((25, 40), np.uint8))] * 3, "The images have more than 2000 pixels together."),
    ],
)
def test_rows_and_pixels_are_bounded(files: list[bytes], sentence: str) -> None:
    error = refused(*form(*((data, "application/octet-stream") for data in files)))
    assert isinstance(error, TooLarge) and str(error) == sentence


def test_a_bundle_takes_only_what_fits_it() -> None:
    several = Bodies(manifest_of(texts()), LIMITS)
    assert several.types == (JSON,)
    assert str(refused(npy(RAMP), NPY, bodies=several)) == (
        "The body has type application/x-npy. It must be one of application/json."
    )
    plain = Bodies(manifest_of(document({"x": {"dtype": "float32", "shape": [2]}})), LIMITS)
    assert plain.types == (JSON, NPY, MULTIPART)
    assert str(refused(*form((png(), PNG)), bodies=plain)) == (
        "files[0] has type image/png. It must be one of application/x-npy."
    )


def test_rows_of_several_files_are_padded_together() -> None:
    one = Bodies(
        manifest_of(document({"ids": {"dtype": "int64", "shape": ["tokens"], "pad": 9}}, buckets={"tokens": [4]})),
        LIMITS,
    )
    parsed = read(*form((npy(np.array([1, 2])), NPY), (npy(np.array([[1, 2, 3]])), NPY)), bodies=one)
    assert parsed.tensors["ids"].tolist() == [[1, 2, 9, 9], [1, 2, 3, 9]]


def test_an_image_description_that_makes_another_tensor_is_refused() -> None:
    doc = digits()
    doc["input"]["image"]["mode"] = "RGB"
    with pytest.raises(BundleError, match=r"input\.image makes RGB pixels of shape \[3, 28, 28\]\. Tensor 'image' is"):
        Bodies(manifest_of(doc), LIMITS)


def test_long_bodies_are_read_elsewhere() -> None:
    assert DIGITS.is_quick(png(), PNG) and DIGITS.is_quick(b"", PNG) and DIGITS.is_quick(b"{}", JSON)
    assert not DIGITS.is_quick(bytes(5000), JPEG) and not DIGITS.is_quick(bytes(2 << 20), JSON)
    assert not DIGITS.is_quick(b"", MULTIPART)


def test_operating_points() -> None:
    check_point("full", manifest_of(digits()))
    with pytest.raises(RequestError, match=r"^operating_point is 'fast'\. It must be one of default, full\.$"):
        check_point("fast", manifest_of(digits()))
