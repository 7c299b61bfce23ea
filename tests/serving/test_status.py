import grpc
import pytest

from common.errors import FailedPrecondition, Malformed, Overloaded, RequestError
from common.serving.status import STATUS, error_from_grpc, error_from_wire, error_to_wire, grpc_status, http_status

CONTRACT = {400, 401, 404, 413, 415, 422, 429, 503, 504}


def every_kind(kind: type[RequestError]) -> set[type[RequestError]]:
    return {kind}.union(*(every_kind(child) for child in kind.__subclasses__()))


def test_every_error_has_a_status_of_the_contract() -> None:
    for kind in every_kind(RequestError) - {RequestError}:
        assert http_status(kind("No.")) in CONTRACT, kind
        assert grpc_status(kind("No.")) is not grpc.StatusCode.UNKNOWN, kind


def test_a_class_without_an_entry_takes_its_parents() -> None:
    class Special(Overloaded):
        pass

    assert http_status(Special("No.")) == 429
    assert http_status(RequestError("No.")) == 500


@pytest.mark.parametrize("kind", [Malformed, FailedPrecondition, Overloaded])
def test_errors_travel_with_their_code(kind: type[RequestError]) -> None:
    back = error_from_wire(error_to_wire(kind("A sentence.", "special")))
    assert type(back) is kind and str(back) == "A sentence." and back.code == "special"


def test_an_unknown_status_is_a_plain_error() -> None:
    assert type(error_from_grpc(grpc.StatusCode.DATA_LOSS, "Lost.")) is RequestError
    assert all(isinstance(pair, tuple) for pair in STATUS.values())
