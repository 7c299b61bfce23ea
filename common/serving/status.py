"""The one table from errors to protocol status codes: the only place that knows gRPC's and HTTP's."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from common.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    Malformed,
    NotFound,
    Overloaded,
    RequestError,
    TooLarge,
    Unavailable,
    Unprocessable,
    UnsupportedType,
)

Code = grpc.StatusCode

# Error -> (gRPC, HTTP). A request over HTTP names neither bundle nor stage, so FailedPrecondition is never
# the caller's mistake there.
STATUS: dict[type[RequestError], tuple[grpc.StatusCode, int]] = {
    Malformed: (Code.INVALID_ARGUMENT, 400),
    Unprocessable: (Code.INVALID_ARGUMENT, 422),
    TooLarge: (Code.INVALID_ARGUMENT, 413),
    UnsupportedType: (Code.INVALID_ARGUMENT, 415),
    NotFound: (Code.NOT_FOUND, 404),
    FailedPrecondition: (Code.FAILED_PRECONDITION, 503),
    Overloaded: (Code.RESOURCE_EXHAUSTED, 429),
    Unavailable: (Code.UNAVAILABLE, 503),
    DeadlineExceeded: (Code.DEADLINE_EXCEEDED, 504),
    Cancelled: (Code.CANCELLED, 503),
}
_UNKNOWN = (Code.UNKNOWN, 500)
_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in Code}

_FROM_GRPC: dict[grpc.StatusCode, type[RequestError]] = {
    Code.INVALID_ARGUMENT: Malformed,
    Code.OUT_OF_RANGE: Malformed,
    Code.NOT_FOUND: NotFound,
    Code.FAILED_PRECONDITION: FailedPrecondition,
    Code.RESOURCE_EXHAUSTED: Overloaded,
    Code.UNAVAILABLE: Unavailable,
    Code.DEADLINE_EXCEEDED: DeadlineExceeded,
    Code.CANCELLED: Cancelled,
}


def grpc_status(error: RequestError) -> grpc.StatusCode:
    """The gRPC status code of an error, or of the nearest class above it that has one."""
    return _both(error)[0]


def http_status(error: RequestError) -> int:
    """The HTTP status of an error, or of the nearest class above it that has one."""
    return _both(error)[1]


def error_from_grpc(status: grpc.StatusCode, message: str, code: str | None = None) -> RequestError:
    """The error that a peer's status code stands for; a plain RequestError for one that no table knows.

    Args:
        status: what the peer said.
        message: its sentence.
        code: its machine-readable name, where the peer gave one.
    """
    return _FROM_GRPC.get(status, RequestError)(message, code)


def _both(error: RequestError) -> tuple[grpc.StatusCode, int]:
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return _UNKNOWN


def error_to_wire(error: RequestError) -> Status:
    """The error as a google.rpc.Status; its machine-readable code travels in an ErrorInfo."""
    info = any_pb2.Any()
    info.Pack(ErrorInfo(reason=error.code, domain="offramp"))
    return Status(code=grpc_status(error).value[0], message=str(error), details=[info])


def error_from_wire(status: Status) -> RequestError:
    """The error that a peer sent as a google.rpc.Status."""
    code = None
    for detail in status.details:
        info = ErrorInfo()
        if detail.Is(ErrorInfo.DESCRIPTOR) and detail.Unpack(info):
            code = info.reason
    return error_from_grpc(_BY_NUMBER.get(status.code, Code.UNKNOWN), status.message, code)
