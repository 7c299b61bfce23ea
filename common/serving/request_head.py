"""What a prediction's HTTP head says: body type and length, request id, trace context."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from common.errors import Malformed, UnsupportedType

_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,64}")
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_READ = frozenset({b"content-type", b"content-length", b"content-encoding", b"x-request-id", b"traceparent"})


@dataclass(slots=True, kw_only=True)
class Head:
    """The headers that matter; empty where there is none."""

    content_type: str = ""
    content_length: int = 0  # 0 also where the length is not told
    request_id: str = ""  # only when it is well formed
    traceparent: str = ""  # only when it is well formed (W3C trace context, version 00)


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """Read the headers of a request, names in lower case as ASGI gives them.

    Raises:
        Malformed: a length that is not a number.
        UnsupportedType: a compressed body.
    """
    head = Head()
    for name, raw in headers:
        if name not in _READ:
            continue
        value = raw.decode("latin-1")
        if name == b"content-type":
            head.content_type = value
        elif name == b"content-length":
            if not raw.isdigit() or len(raw) > 18:
                raise Malformed(f"content-length is {value[:40]!r}. It must be a number of bytes.", "bad_length")
            head.content_length = int(raw)
        elif name == b"x-request-id":
            head.request_id = value if _ID.fullmatch(value) else ""
        elif name == b"traceparent":
            head.traceparent = value if _TRACEPARENT.fullmatch(value) else ""
        elif value.strip().lower() not in ("", "identity"):
            raise UnsupportedType(f"The body has content-encoding {value[:40]}. It must not be compressed.")
    return head


def fresh_ids() -> Callable[[], str]:
    """A source of request ids: a random part per source, then a count. Far cheaper than random ones."""
    prefix, count = secrets.token_hex(6), itertools.count()
    return lambda: f"{prefix}-{next(count):x}"
