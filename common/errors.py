"""Everything that can go wrong at run time, as one tree.

    OfframpError
    ├── ConfigError            a wrong tiers.yaml, environment variable or option
    ├── BundleError            a bundle that must not be loaded
    └── RequestError           one request cannot be served; carries a stable `code`
        ├── Malformed          the body or a tensor is not what the bundle takes
        ├── Unprocessable      well-formed, but a key or a value is not allowed
        ├── TooLarge           more bytes, pixels or rows than the limits allow
        ├── UnsupportedType    a body type that no door takes
        ├── NotFound           no such route
        ├── FailedPrecondition this tier lacks the bundle or the stage that the request names
        ├── Overloaded         the queue is full
        ├── Unavailable        nobody can answer now
        ├── DeadlineExceeded   the time ran out before any exit was computed
        └── Cancelled          the caller withdrew the request

Every message is one sentence or two: what was wrong, where, and what is accepted. Doors translate the
classes to protocol status codes in one table, `common.serving.status`.
"""

from __future__ import annotations


class OfframpError(Exception):
    """Base of every error that offramp raises on purpose."""


class ConfigError(OfframpError):
    """A configuration file, environment variable or option is wrong."""


class BundleError(OfframpError):
    """A bundle is damaged, incomplete, unsafe or too new."""


class RequestError(OfframpError):
    """One request cannot be served.

    Args:
        message: one sentence for the caller.
        code: stable machine-readable name of the mistake; the class has a default.
    """

    code = "error"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class Malformed(RequestError):
    """The body or a tensor is not what the bundle takes."""

    code = "malformed"


class Unprocessable(RequestError):
    """The body is well-formed, but a key or a value in it is not allowed."""

    code = "unprocessable"


class TooLarge(RequestError):
    """More bytes, pixels or rows than the limits allow."""

    code = "too_large"


class UnsupportedType(RequestError):
    """A body type that this door does not take."""

    code = "unsupported_type"


class NotFound(RequestError):
    """No such route."""

    code = "not_found"


class FailedPrecondition(RequestError):
    """This tier lacks the bundle or the stage that the request names."""

    code = "failed_precondition"


class Overloaded(RequestError):
    """The tier's queue is full."""

    code = "overloaded"


class Unavailable(RequestError):
    """Nobody can answer now: no exit was computed and upstream is out of reach."""

    code = "unavailable"


class DeadlineExceeded(RequestError):
    """The time ran out before any exit was computed."""

    code = "deadline"


class Cancelled(RequestError):
    """The caller withdrew the request."""

    code = "cancelled"
