import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Malformed, RequestError, TooLarge
from common.limits import Limits
from common.serving.multipart import Part, read_parts

LIMITS = Limits(batch_rows=3)
TYPE = "multipart/form-data; boundary=line"


def part(head: str, data: bytes = b"data") -> bytes:
    return b"--line\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n"


def file(data: bytes = b"data", media_type: str = "image/png") -> bytes:
    return part(f'Content-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: {media_type}', data)


def field(name: str, value: bytes) -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', value)


def refused(body: bytes, content_type: str = TYPE) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read_parts(body, content_type, LIMITS)
    return caught.value


def test_files_and_fields_in_order() -> None:
    body = file(b"--lin\r\n\x00") + field("forward", b"false") + file(b"", "Image/PNG; a=b") + b"--line--\r\n"
    assert read_parts(body, TYPE, LIMITS) == [
        Part(name="files", is_file=True, media_type="image/png", data=b"--lin\r\n\x00"),
        Part(name="forward", is_file=False, media_type="", data=b"false"),
        Part(name="files", is_file=True, media_type="image/png", data=b""),
    ]


@pytest.mark.parametrize(
    ("head", "is_file"), [("", False), ("\r\ncontent-type: text/plain", False), ("\r\ncontent-type: image/png", True)]
)
def test_a_type_alone_makes_a_file(head: str, is_file: bool) -> None:
    body = part(f"content-disposition: form-data; name=a{head}") + b"--line--\r\n"
    assert [part.is_file for part in read_parts(body, TYPE, LIMITS)] == [is_file]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The body is not valid multipart/form-data, or is cut off."),
        (file(), "The body is not valid multipart/form-data, or is cut off."),
        (b"hello", "The body is not valid multipart/form-data, or is cut off."),
        (part("Content-Type: image/png") + b"--line--", "A part has no content-disposition: form-data with a name."),
        (part("X: " + "y" * 10_000) + b"--line--", "The body is not valid multipart/form-data, or is cut off."),
        (part("\r\n".join(["X: y"] * 100)) + b"--line--", "The body is not valid multipart/form-data, or is cut off."),
    ],
)
def test_what_is_not_multipart(body: bytes, sentence: str) -> None:
    error = refused(body)
    assert isinstance(error, Malformed) and str(error) == sentence


@pytest.mark.parametrize("content_type", ["multipart/form-data", 'multipart/form-data; boundary=""'])
def test_a_boundary_is_needed(content_type: str) -> None:
    assert str(refused(file(), content_type)) == "The content-type multipart/form-data has no boundary."


def test_a_boundary_may_not_be_endless() -> None:
    assert refused(file(), "multipart/form-data; boundary=" + "x" * 5000).code == "bad_multipart"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (file() * 4, "The body has more than 3 files."),
        (field("a", b"1") * 17, "The body has more than 16 form fields."),
        (
            field("files", b"x" * 257),
            "Form field 'files' has 257 bytes. At most 256 are accepted. A file needs a file name or a type.",
        ),
    ],
)
def test_parts_are_bounded(body: bytes, sentence: str) -> None:
    error = refused(body + b"--line--\r\n")
    assert isinstance(error, TooLarge) and str(error) == sentence


@given(st.binary(max_size=60), st.sampled_from([file(), field("a", b"1"), b"--line\r\n", b"--line--\r\n", b""]))
def test_any_bytes_are_read_or_refused(raw: bytes, known: bytes) -> None:
    for body in (raw + known, known + raw, known + raw + b"\r\n--line--\r\n"):
        try:
            read_parts(body, TYPE, LIMITS)
        except RequestError:
            continue
