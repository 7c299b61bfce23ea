import pytest

from common.errors import Malformed, UnsupportedType
from common.serving.request_head import fresh_ids, read_head

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_what_matters_is_read() -> None:
    head = read_head(
        [
            (b"host", b"x"),
            (b"content-type", b"image/png"),
            (b"content-length", b"12"),
            (b"content-encoding", b"identity"),
            (b"x-request-id", b"run:7/a.b=c@d+e_f-9"),
            (b"traceparent", TRACE.encode()),
        ]
    )
    assert (head.content_type, head.content_length) == ("image/png", 12)
    assert (head.request_id, head.traceparent) == ("run:7/a.b=c@d+e_f-9", TRACE)


@pytest.mark.parametrize("raw", [b"", b"a b", b"\xff", b"x" * 65, b"a#1", b"a\n"])
def test_an_odd_request_id_is_left(raw: bytes) -> None:
    assert read_head([(b"x-request-id", raw)]).request_id == ""


@pytest.mark.parametrize(
    "raw", [TRACE[:-1], "01" + TRACE[2:], TRACE.upper(), "00-" + "0" * 32 + TRACE[35:], TRACE[:36] + "0" * 16 + "-01"]
)
def test_an_odd_traceparent_is_left(raw: str) -> None:
    assert read_head([(b"traceparent", raw.encode())]).traceparent == ""


def test_refusals() -> None:
    with pytest.raises(UnsupportedType, match=r"^The body has content-encoding gzip\. It must not be compressed\.$"):
        read_head([(b"content-encoding", b"gzip")])
    for length in (b"-1", b"x", b"9" * 19, b""):
        with pytest.raises(Malformed, match="It must be a number of bytes"):
            read_head([(b"content-length", length)])


def test_fresh_ids_differ() -> None:
    ids, others = fresh_ids(), fresh_ids()
    assert len({ids() for _ in range(1000)} | {others() for _ in range(1000)}) == 2000
