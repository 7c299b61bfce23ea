import pytest

from common.errors import Unprocessable
from common.serving.options import DEFAULTS, Options, options_from_json, options_from_query


def test_nothing_asked_is_the_defaults() -> None:
    assert options_from_json({}) == DEFAULTS and options_from_query(b"") == {}


def test_a_query() -> None:
    given = options_from_query(b"timeout_ms=1e2&operating_point=full&probabilities=true&forward=false")
    assert options_from_json(given) == Options(
        timeout_ms=100.0, operating_point="full", probabilities=True, forward=False
    )


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (b"timeout_ms=0", "timeout_ms is 0.0. It must be a number of milliseconds above 0, at most 3600000."),
        (b"timeout_ms=-1", 'timeout_ms is "-1". It must be a number of milliseconds above 0, at most 3600000.'),
        (b"timeout_ms=inf", 'timeout_ms is "inf". It must be a number of milliseconds above 0, at most 3600000.'),
        (b"timeout_ms=1e999", "timeout_ms is null. It must be a number of milliseconds above 0, at most 3600000."),
        (b"forward=1", 'forward is "1". It must be true or false.'),
        (b"forward=", 'forward is "". It must be true or false.'),
        (b"forward=true&forward=true", "forward is given more than once."),
        (b"a=1", '"a" is not a known key. The keys are inputs, timeout_ms, operating_point, probabilities, forward.'),
        (b"&".join([b"a=1"] * 17), "The query string has too many parameters."),
        (b"x" * 50 + b"=1", f'"{"x" * 40}..." is not a known key. The keys are '),
        (b"\xff=1", '"'),
    ],
)
def test_what_is_refused(query: bytes, sentence: str) -> None:
    with pytest.raises(Unprocessable) as caught:
        options_from_query(query)
    assert str(caught.value).startswith(sentence)
