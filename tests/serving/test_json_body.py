import itertools
import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.errors import RequestError, TooLarge, Unprocessable
from common.limits import Limits
from common.serving.json_body import JsonBody
from common.serving.options import Options
from tests.serving.doors import digits, document, manifest_of, texts

SMALL = (2, 3)


def small(dtype: str) -> JsonBody:
    return JsonBody(manifest_of(document({"x": {"dtype": dtype, "shape": list(SMALL)}})), Limits(batch_rows=8))


DIGITS = JsonBody(manifest_of(digits()), Limits())
FLOATS = JsonBody(manifest_of(digits("float32")), Limits())
TEXTS = JsonBody(manifest_of(texts()), Limits())
ROW = np.zeros((1, 28, 28), int).tolist()


def refused(reader: JsonBody, body: bytes | dict[str, Any]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        reader.read(body if isinstance(body, bytes) else orjson.dumps(body))
    return caught.value


def with_pixel(value: Any) -> dict[str, Any]:
    row = np.zeros((1, 28, 28), int).tolist()
    row[0][3][5] = value
    return {"inputs": [ROW, row]}


@given(
    st.sampled_from("bool uint8 int8 int16 int32 int64 float16 float32 float64".split()),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_what_is_written_is_what_is_read(dtype: str, rows: int, flat: bool, options: bool, data: st.DataObject) -> None:
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.startswith("float") else None
    elements = hnp.from_dtype(np.dtype(dtype), **(finite or {}))
    x = data.draw(hnp.arrays(dtype, (rows, *SMALL), elements=elements))
    body: dict[str, Any] = {"inputs": (x.reshape(rows, -1) if flat else x).tolist()}
    if options:
        body |= {"probabilities": True, "forward": False, "timeout_ms": 2.5, "operating_point": "true"}
    tensors, read = small(dtype).read(json.dumps(body, indent=data.draw(st.sampled_from([None, 1]))).encode())
    assert tensors["x"].dtype == np.dtype(dtype) and tensors["x"].shape == x.shape
    assert np.array_equal(tensors["x"], x)
    assert read.probabilities is options and read.forward is not options


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
                    max_leaves=20))  # fmt: skip
def test_any_json_is_read_or_refused(value: Any) -> None:
    for body in (value, {"inputs": value}, {"inputs": [value]}, {"inputs": [[[1, 2, 3], [4, 5, value]]]}):
        try:
            raw = orjson.dumps(body)
        except (TypeError, UnicodeEncodeError):  # beyond 64 bits, or half of a surrogate pair
            continue
        for dtype in ("uint8", "float32", "bool"):
            try:
                tensors, _ = small(dtype).read(raw)
            except RequestError:
                continue
            assert tensors["x"].shape[1:] == SMALL


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for body in (raw, b'{"inputs": ' + raw + b"}"):
        try:
            DIGITS.read(body)
        except RequestError:
            continue


@pytest.mark.parametrize("literal", [b"7.5", b"1e-1", b"true", b"false", b"null", b'"7"', b"256", b"-1", b"[7]", b"{}"])
@pytest.mark.parametrize("key", ["", '"forward": true, ', '"tim\\u0065out_ms": 5, ', '"operating_point": "e", '])
def test_nothing_but_whole_numbers_slips_into_an_integer_tensor(literal: bytes, key: str) -> None:
    reader = JsonBody(manifest_of(document({"x": {"dtype": "uint8", "shape": [3]}})), Limits())
    body = b"{" + key.encode() + b'"inputs": [[1, 2, 3], [4, ' + literal + b", 6]]}"
    error = refused(reader, body)
    assert str(error).startswith("inputs[1]")


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ("[1, 2, 3, 4]", "inputs[0] has shape [2]. It must be [3]."),  # as many numbers as two good rows
        ("3", "inputs[0] has shape [2]. It must be [3]."),
        ("{}", "inputs[0] has shape [2]. It must be [3]."),
    ],
)
def test_rows_of_bytes_are_counted_one_by_one(other: str, sentence: str) -> None:
    reader = JsonBody(manifest_of(document({"x": {"dtype": "uint8", "shape": [3]}})), Limits())
    assert str(refused(reader, f'{{"inputs": [[1, 2], {other}]}}'.encode())) == sentence
    if other != "[1, 2, 3, 4]":
        assert str(refused(reader, f'{{"inputs": [[1, 2, 3], {other}]}}'.encode())).startswith("inputs[1] ")


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"inputs": [[1, 2, 3]], "inputs": [[1, 2, 3]]}', "inputs"),
        (b'{"inputs": [[1, 2, 3]], "in\\u0070uts": [[1, 2, 3]]}', "inputs"),
        (b'{"forward": true, "inputs": [[1, 2, 3]], "forward": false}', "forward"),
        (b'{"forward": 5, "inputs": [[1, 2, 3]], "forward": false}', "forward"),
        (b'{"operating_point": "x", "operating_point": "y", "inputs": [[1, 2, 3]]}', "operating_point"),
        (b'{"inputs": [{"x": [1, 2, 3], "x": [1, 2, 3]}]}', "x"),
    ],
)
def test_a_key_stands_there_once(body: bytes, key: str) -> None:
    reader = JsonBody(manifest_of(document({"x": {"dtype": "uint8", "shape": [3]}})), Limits())
    error = refused(reader, body)
    assert (error.code, str(error)) == ("bad_json", f'The body has the key "{key}" more than once.')


@pytest.mark.parametrize("order", list(itertools.permutations(["1", "2.0", "3e0"])))
def test_whole_numbers_written_as_fractions_are_whole(order: tuple[str, ...]) -> None:
    reader = JsonBody(manifest_of(document({"x": {"dtype": "int64", "shape": [3]}})), Limits())
    tensors, _ = reader.read(f'{{"inputs": [[{", ".join(order)}]]}}'.encode())
    assert tensors["x"].tolist() == [[int(float(text)) for text in order]]


def test_large_integers_keep_every_digit() -> None:
    reader = JsonBody(manifest_of(document({"x": {"dtype": "int64", "shape": [2]}})), Limits())
    tensors, _ = reader.read(b'{"inputs": [[9007199254740993, 1.0]]}')
    assert tensors["x"].tolist() == [[9007199254740993, 1]]


@pytest.mark.parametrize(
    ("value", "shown", "code"),
    [
        (7.5, "7.5", "bad_value"),
        (256, "256", "bad_value"),
        (-1, "-1", "bad_value"),
        (True, "true", "bad_value"),
        (None, "null", "bad_value"),
        ("7", '"7"', "bad_value"),
        ({}, "an object", "bad_value"),
        ([1], "a list", "bad_value"),
    ],
)
def test_a_value_that_is_not_taken_is_named_with_its_place(value: Any, shown: str, code: str) -> None:
    error = refused(DIGITS, with_pixel(value))
    assert (error.code, str(error)) == (
        code,
        f"inputs[1][0][3][5] is {shown}. It must be a whole number from 0 to 255 (uint8).",
    )


def test_floats_must_lie_in_their_range() -> None:
    assert str(refused(FLOATS, with_pixel(1e39))) == (
        "inputs[1][0][3][5] is 1e+39. It must be a number within the range of float32."
    )
    tensors, _ = FLOATS.read(orjson.dumps(with_pixel(0.1)))
    assert tensors["image"][1, 0, 3, 5] == np.float32(0.1)


def test_rows_may_be_nested_or_flat_in_one_batch() -> None:
    flat = np.arange(784) % 256
    tensors, _ = DIGITS.read(orjson.dumps({"inputs": [flat.tolist(), flat.reshape(1, 28, 28).tolist()]}))
    assert (tensors["image"].reshape(2, -1) == flat).all()


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ([ROW, ROW, ROW, [[0] * 27] * 28], "inputs[3] has shape [28, 27]. It must be [1, 28, 28]."),
        ([[0] * 783], "inputs[0] has shape [783]. It must be [1, 28, 28]."),
        (ROW, "inputs[0] has shape [28, 28]. It must be [1, 28, 28]."),
        ([5], "inputs[0] is 5. It must be a list of numbers of shape [1, 28, 28]."),
        ([ROW, None], "inputs[1] is null. It must be a list of numbers of shape [1, 28, 28]."),
        ([[]], "inputs[0] has shape [0]. It must be [1, 28, 28]."),
        (5, "inputs is 5. It must be a list with one input per row."),
        ([], "The batch is empty. It must hold at least one row."),
        (
            [[[[0] * 28] * 27 + [[0] * 27]]],
            "inputs[0][0][27] has 27 elements. It must have 28, as the lists before it have.",
        ),
        ([[[[0] * 28] * 27 + [0]]], "inputs[0][0][27] is 0. It must be a list of 28."),
        ([{"picture": ROW}], 'inputs[0] has "picture". It must have the keys image.'),
    ],
)
def test_shapes(inputs: Any, sentence: str) -> None:
    assert str(refused(DIGITS, {"inputs": inputs})) == sentence


def test_an_object_per_row_is_taken_with_one_tensor_too() -> None:
    tensors, _ = DIGITS.read(orjson.dumps({"inputs": [{"image": ROW}]}))
    assert tensors["image"].shape == (1, 1, 28, 28)


def test_too_many_rows() -> None:
    error = refused(JsonBody(manifest_of(digits()), Limits(batch_rows=2)), {"inputs": [ROW] * 3})
    assert isinstance(error, TooLarge) and str(error) == "The batch has 3 rows. At most 2 are accepted."


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The body is not JSON: Input is a zero-length, empty document: line 1 column 1 (char 0)."),
        (b'{"inputs": [NaN]}', "The body is not JSON: unexpected character"),
        (b'{"inputs": [Infinity]}', "The body is not JSON: unexpected character"),
        (b'{"inputs": [1e999]}', "The body is not JSON: number is infinity"),
        (b'{"inputs": [1,]}', "The body is not JSON: "),
        (b"[1, 2]", 'The body is a list. It must be an object such as {"inputs": [...]}.'),
        (b"null", 'The body is null. It must be an object such as {"inputs": [...]}.'),
        (b'{"inputs": ' + b"[" * 20 + b"]" * 20 + b"}", "inputs[0] is nested deeper than 16 levels."),
        (b"[" * 50_000, "The body is nested deeper than 16 levels."),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "The body is nested deeper than 16 levels."),
    ],
)
def test_what_is_not_json(body: bytes, sentence: str) -> None:
    error = refused(DIGITS, body)
    assert str(error).startswith(sentence)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"input": 1}, '"input" is not a known key. The keys are inputs, timeout_ms, operating_point, probabilities, '),
        ({"timeout_ms": 0}, "timeout_ms is 0. It must be a number of milliseconds above 0, at most 3600000."),
        ({"timeout_ms": True}, "timeout_ms is true. It must be a number of milliseconds above 0, at most 3600000."),
        ({"timeout_ms": [[1]]}, "timeout_ms is a list. It must be a number of milliseconds above 0, at most 3600000."),
        ({"probabilities": 1}, "probabilities is 1. It must be true or false."),
        ({"forward": "no"}, 'forward is "no". It must be true or false.'),
        ({"operating_point": None}, "operating_point is null. It must be a string."),
    ],
)
def test_options_are_checked(more: dict[str, Any], sentence: str) -> None:
    error = refused(DIGITS, {"inputs": [ROW], **more})
    assert isinstance(error, Unprocessable) and str(error).startswith(sentence)


def test_inputs_may_not_be_missing() -> None:
    error = refused(DIGITS, {})
    assert isinstance(error, Unprocessable)
    assert str(error) == "The body has no key inputs. It must hold a list with one input per row."


def test_options_from_elsewhere_join_and_never_repeat() -> None:
    _, options = DIGITS.read(orjson.dumps({"inputs": [ROW], "forward": False}), {"timeout_ms": 5.0})
    assert options == Options(timeout_ms=5.0, forward=False)
    with pytest.raises(Unprocessable, match=r"^forward is given more than once\.$"):
        DIGITS.read(orjson.dumps({"inputs": [ROW], "forward": False}), {"forward": False})


def test_rows_of_different_length_are_padded_to_one_bucket() -> None:
    inputs = [{"ids": [1, 2], "mask": [1, True]}, {"ids": [1, 2, 3, 4, 5], "mask": [1, 1, 1, 1, 0]}]
    tensors, _ = TEXTS.read(orjson.dumps({"inputs": inputs}))
    assert tensors["ids"].tolist() == [[1, 2, 9, 9, 9, 9, 9, 9], [1, 2, 3, 4, 5, 9, 9, 9]]
    assert tensors["mask"].sum(axis=1).tolist() == [2, 4]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"ids": [1]}, 'inputs[0] has "ids". It must have the keys ids, mask.'),
        ({}, "inputs[0] has no keys. It must have the keys ids, mask."),
        ([1], "inputs[0] is a list. It must be an object with the keys ids, mask."),
        ({"ids": [1, 2], "mask": [1]}, "inputs[0].mask has shape [1]. It must be [tokens] with tokens = 2."),
        ({"ids": [], "mask": []}, "inputs[0].ids has shape [0]. It must be [tokens]."),
        ({"ids": [1] * 9, "mask": [1] * 9}, "A row has 9 tokens. At most 8 are accepted."),
        ({"ids": [1], "mask": [2]}, "inputs[0].mask[0] is 2. It must be true, false, 1 or 0."),
    ],
)
def test_several_tensors(row: Any, sentence: str) -> None:
    assert str(refused(TEXTS, {"inputs": [row]})) == sentence
