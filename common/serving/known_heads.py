"""Heads of requests that have been parsed before: a client sends the same one again and again.

What a head says follows from its bytes alone. So a head that the parser took for a quick route once need not be
parsed again: it is known by its bytes, all but the digits of its content-length. Only a whole request that is all
of one read is looked at in this way; everything else goes to the parser.
"""

from __future__ import annotations

from common.serving.asgi import Headers
from common.serving.exchange import HIGH_WATER, Quick

_MOST = 256  # heads; beyond them all are forgotten, and those in use learnt again
_LONGEST = 2048  # bytes of a head
_END = b"\r\n\r\n"
_NAME = b"\r\ncontent-length: "
_NAME_END = b"ength: "  # whatever the case of the first letters, and seldom found in anything else
_MARK = len(_NAME_END)
_MOST_DIGITS = len(str(HIGH_WATER))


class KnownHeads:
    """The heads of one server's quick routes."""

    def __init__(self) -> None:
        self._known: dict[bytes, Quick] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, data: bytes) -> tuple[Quick, bytes] | None:
        """What answers the request that `data` is, and its body; None where the parser must have a look."""
        end = data.find(_END, 0, _LONGEST)
        at = data.find(_NAME_END, 0, end) + _MARK
        stop = data.find(b"\r", at)
        digits = data[at:stop]
        if end < 0 or at < _MARK or not digits.isdigit() or len(digits) > _MOST_DIGITS:
            return None
        end += 4
        quick = self._known.get(data[:at] + data[stop:end])
        if quick is None or len(data) - end != int(digits):
            return None
        return quick, data[end:]

    def learn(self, data: bytes, quick: Quick, headers: Headers, length: int) -> None:
        """Remember the head of a request that the parser has taken from the beginning of `data`.

        Args:
            data: one read.
            quick: what answers requests with this head, on a connection that stays open.
            headers: of the request, names in lower case.
            length: bytes of its body. The head is remembered only where they are the rest of `data`.
        """
        end = data.find(_END, 0, _LONGEST)
        at = data.find(_NAME_END, 0, end) + _MARK
        if end < 0 or len(data) - end - 4 != length or not data[:at].lower().endswith(_NAME):
            return
        lengths = [value for name, value in headers if name in (b"content-length", b"transfer-encoding")]
        if lengths != [b"%d" % length]:
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[data[:at] + data[data.find(b"\r", at) : end + 4]] = quick
