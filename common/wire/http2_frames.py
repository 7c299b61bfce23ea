"""HTTP/2 as far as a hop needs it: frames, settings, and what either end says first (RFC 9113, RFC 7541)."""

from __future__ import annotations

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MARK = 0x6F66  # the setting by which two of us know each other
HEADER = struct.Struct(">HBBBI")  # of a frame: length in 16 + 8 bits, type, flags, stream
FRAME_HEADER = HEADER.size
STREAM = 1  # the only one
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8  # flags

LARGEST = (1 << 31) - 1  # flow-control window
MAX_FRAME = (1 << 24) - 1
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME = 16_384
MAX_CONTROL = 1 << 15  # bytes of a frame that is not data


class Frame(IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """Settings that matter here."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


class ProtocolError(Exception):
    """The peer does not speak HTTP/2 as it is spoken here."""


def settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings of a SETTINGS frame.

    Raises:
        ProtocolError: when its length is not a multiple of six.
    """
    if len(payload) % 6:
        raise ProtocolError("settings of a length that is no multiple of 6")
    return list(struct.iter_unpack(">HI", payload))


def is_ours(head: bytes) -> bool | None:
    """Whether a connection that begins like this comes from a `MessageStream`; None while that is open."""
    if not PREFACE.startswith(head[: len(PREFACE)]):
        return False
    at = len(PREFACE) + FRAME_HEADER
    if len(head) < at:
        return None
    high, low, kind, _, _ = HEADER.unpack_from(head, len(PREFACE))
    length = high << 8 | low
    if kind != Frame.SETTINGS or length % 6 or length > MAX_CONTROL:
        return False
    if len(head) < at + length:
        return None
    return any(name == MARK for name, _ in settings(head[at : at + length]))


def greeting() -> bytes:
    """Settings with the largest windows: what bounds a peer is that its bytes are not read from the socket."""
    ours = (
        (Setting.HEADER_TABLE_SIZE, 0),
        (Setting.ENABLE_PUSH, 0),
        (Setting.INITIAL_WINDOW_SIZE, LARGEST),
        (Setting.MAX_FRAME_SIZE, MAX_FRAME),
        (MARK, 1),
    )
    update = struct.pack(">I", LARGEST - DEFAULT_WINDOW)
    payload = b"".join(struct.pack(">HI", name, value) for name, value in ours)
    return frame(Frame.SETTINGS, 0, 0, payload) + frame(Frame.WINDOW_UPDATE, 0, 0, update)


def opening(*, path: str, authority: str) -> bytes:
    """What a client says first: preface, settings, and the call of a method of gRPC."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
    block = b"".join(_literal(name, value) for name, value in fields)
    return PREFACE + greeting() + frame(Frame.HEADERS, END_HEADERS, STREAM, block)


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview) -> bytes:
    """A frame."""
    size = len(payload)
    return b"".join((HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream), payload))


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field as HPACK's "literal without indexing, new name", without Huffman coding (RFC 7541, 6.2.2)."""
    assert len(name) < 127 and len(value) < 127
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


_TAKEN = _literal(b":status", b"200") + _literal(b"content-type", b"application/grpc")
RESPONSE = frame(Frame.HEADERS, END_HEADERS, STREAM, _TAKEN)  # a server's, when its method was called
