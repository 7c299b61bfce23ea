"""One gRPC stream of messages with an HTTP/2 connection to itself, as a protocol of the event loop.

gRPC's own library answers a call from threads of its own and wakes the event loop for every message, which costs
several times as much as what a tier does with it. A hop needs little of HTTP/2 (RFC 9113, and "gRPC over HTTP2"):
a connection with one stream, data frames, flow control, pings. As a client this speaks to any gRPC server. As a
server it takes only peers that say they are of this kind, with a setting that others ignore (RFC 9113, 6.5.2);
everybody else is for gRPC's library.

A large message is received into its own buffer and sent from where it lies; header blocks of the peer are not read.
Nothing is compressed here, and nobody is told that it may be, but some servers of gRPC's library do so all the same.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections import deque
from collections.abc import Callable

from common.wire.http2_frames import (
    ACK,
    DEFAULT_FRAME,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    HEADER,
    LARGEST,
    MAX_CONTROL,
    MAX_FRAME,
    PADDED,
    RESPONSE,
    STREAM,
    Frame,
    ProtocolError,
    Setting,
    frame,
    greeting,
    opening,
    settings,
)

MESSAGE_PREFIX = 5

_SCRATCH = 1 << 16
_FIRST_BODY = 1 << 20  # bytes set aside for a message before they arrive; doubled as they do, up to its size
_JOINED = 1 << 16  # a shorter message is copied behind its frame header, a longer one is not
_LEAST_BACKLOG = 1 << 20  # bytes that a server holds for a peer without a window, however short its messages are
_ANY_HEADER = 32 + zlib.MAX_WBITS  # gzip's or zlib's, whichever gRPC's "gzip" and "deflate" begin with
_HELD = 256  # bytes that a message costs beside its own while it is held
_MOST_OWED = 1 << 20  # bytes of acknowledgements for a peer that does not read them
_PREFIX = struct.Struct(">BI")  # of a message: whether it is compressed, its length
_DATA_MESSAGE = struct.Struct(">HBBBIBI")  # a frame's header and a message's prefix
_DATA = int(Frame.DATA)


class MessageStream(asyncio.BufferedProtocol):
    """The stream; `dial` and `serve` say from which end.

    Args:
        max_message_bytes: a longer message ends the connection.
        received: called with each message, whose buffer is nobody else's.
        lost: called once when the connection has gone, with the reason where one is known.
        leaving: called when the server has said that it will close the connection.
    """

    def __init__(
        self,
        *,
        max_message_bytes: int,
        received: Callable[[bytes | bytearray], None],
        lost: Callable[[Exception | None], None],
        leaving: Callable[[], None] = lambda: None,
    ) -> None:
        self.max_frame = DEFAULT_FRAME  # of the peer
        self._max_message = max_message_bytes
        self._received = received
        self._lost = lost
        self._leaving = leaving
        self._transport: asyncio.Transport | None = None
        self._opening = b""
        self._path = b""  # as a server: what must be called, until it was
        self._client = True
        self._closed = False
        # what arrives
        self._scratch = bytearray(_SCRATCH)
        self._view = memoryview(self._scratch)
        self._start = self._end = 0
        self._direct = False  # whether the next bytes go into the message that is under way
        self._frame_left = 0  # of the data frame that is being read
        self._unacknowledged = 0  # data bytes since the last window update
        self._prefix = bytearray()  # of the message that begins
        self._body: bytearray | None = None  # of the message that is under way; may still be shorter than that is
        self._body_size = 0  # of the whole message
        self._filled = 0
        self._compressed = False  # the message that begins or is under way
        self._first_body = _FIRST_BODY  # or as many bytes as the longest message had so far
        # what is sent
        self._backlog: deque[memoryview] = deque()  # messages that wait for the peer's window
        self._backlog_bytes = 0
        self._most_backlog = max(4 * max_message_bytes, _LEAST_BACKLOG)  # a few of the longest; of a server
        self._unread = False  # the peer does not read what it is sent
        self._owed = 0  # bytes of acknowledgements since then
        self._why: ProtocolError | None = None  # this end closed the connection
        self._window = DEFAULT_WINDOW  # of the connection
        self._stream_window = DEFAULT_WINDOW
        self._initial_window = DEFAULT_WINDOW

    # ------------------------------------------------------------------ both ends

    def dial(self, *, path: str, authority: str) -> MessageStream:
        """Be the client: open the stream as soon as the connection stands."""
        self._opening = opening(path=path, authority=authority)
        return self

    def serve(self, *, path: str) -> MessageStream:
        """Be the server of this method."""
        self._opening = greeting()
        self._path = path.encode()
        self._client = False
        return self

    @property
    def called(self) -> bool:
        """Whether a server's method was called, and messages may come."""
        return not self._path

    @property
    def unsent(self) -> int:
        """Bytes of what was sent that are still here, since the peer has no window for them or does not read."""
        written = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self._backlog_bytes + written

    def send(self, message: bytes) -> int:
        """Send a message, now or when the peer has room; returns its bytes on the wire, framing included."""
        size = len(message) + MESSAGE_PREFIX
        if self._closed or self._transport is None:
            return 0
        if not self._backlog and size <= self.max_frame and size <= self._window and size <= self._stream_window:
            self._window -= size
            self._stream_window -= size
            head = _DATA_MESSAGE.pack(size >> 8, size & 0xFF, _DATA, 0, STREAM, 0, len(message))
            if size < _JOINED:
                self._transport.write(head + message)
            else:
                self._transport.writelines((head, message))
            return size + FRAME_HEADER
        self._backlog.append(memoryview(_PREFIX.pack(0, len(message)) + message))
        self._backlog_bytes += size + _HELD
        self._flush()
        if self._backlog_bytes > self._most_backlog and not self._client:
            self._give_up(f"no window for {len(self._backlog)} messages")
        return size + FRAME_HEADER * -(-size // self.max_frame)

    def close(self) -> None:
        """Close the connection at once, what is not sent yet included."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------ for the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Say what HTTP/2 wants to hear first."""
        self._transport = transport
        transport.write(self._opening)

    def connection_lost(self, error: Exception | None) -> None:
        """The peer has gone."""
        self._closed = True
        self._backlog.clear()
        self._backlog_bytes = 0
        told = self._lost
        self._received = self._lost = self._leaving = _unheard  # who is told knows this stream in turn
        told(self._why or error)

    def eof_received(self) -> bool:
        """The peer sends no more: it has gone, for us."""
        return False

    def pause_writing(self) -> None:
        """The peer does not read what it is sent. A client reads on all the same, or both might wait for ever."""
        self._unread, self._owed = True, 0
        if not self._client and self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._unread = False
        if not self._client and self._transport is not None and not self._closed:
            self._transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: straight into the message that is under way, or to where frames are parsed."""
        self._direct = self._body is not None and self._frame_left > 0 and self._start == self._end
        if self._direct:
            return memoryview(self._body)[self._filled : self._filled + self._frame_left]  # type: ignore[arg-type]
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == _SCRATCH:
            rest = bytes(self._view[self._start : self._end])
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has arrived."""
        try:
            if self._direct:
                self._take(nbytes)
            else:
                self._end += nbytes
                self._parse()
        except ProtocolError as error:
            self._fail(error)

    def feed(self, data: bytes) -> None:
        """Take bytes that were read before this protocol took over; the preface is not among them."""
        view = memoryview(data)
        while view and not self._closed:
            room = self.get_buffer(len(view))
            size = min(len(room), len(view))
            room[:size] = view[:size]
            view = view[size:]
            self.buffer_updated(size)

    # ------------------------------------------------------------------ what arrives

    def _parse(self) -> None:
        """Read the frames in the scratch buffer, as far as they are there."""
        while not self._closed:
            if self._frame_left:
                if self._start == self._end:
                    return
                self._data()
                continue
            there = self._end - self._start
            if there < FRAME_HEADER:
                return
            high, low, kind, flags, stream = HEADER.unpack_from(self._scratch, self._start)
            length = high << 8 | low
            if kind == _DATA:
                self._begin_data(length, flags, stream)
                continue
            if length > MAX_CONTROL:
                raise ProtocolError(f"a frame of type {kind} with {length} bytes")
            if there < FRAME_HEADER + length:
                return
            begin = self._start + FRAME_HEADER
            self._start = begin + length
            self._control(kind, flags, stream, bytes(self._view[begin : begin + length]))

    def _begin_data(self, length: int, flags: int, stream: int) -> None:
        if stream != STREAM or flags & PADDED or length > MAX_FRAME or self._path:
            raise ProtocolError("a data frame that is not of the stream, is padded, or comes too early")
        if flags & END_STREAM:
            raise ProtocolError("the peer has ended the stream")
        self._start += FRAME_HEADER
        self._frame_left = length
        self._unacknowledged += length
        if self._unacknowledged > LARGEST // 4:
            update = struct.pack(">I", self._unacknowledged)
            self._write(frame(Frame.WINDOW_UPDATE, 0, 0, update) + frame(Frame.WINDOW_UPDATE, 0, STREAM, update))
            self._unacknowledged = 0

    def _data(self) -> None:
        """Read what is there of a data frame's messages."""
        there = min(self._frame_left, self._end - self._start)
        if self._body is not None:
            there = min(there, len(self._body) - self._filled)
            self._body[self._filled : self._filled + there] = self._view[self._start : self._start + there]
            self._start += there
            self._take(there)
            return
        if self._prefix or there < MESSAGE_PREFIX:  # in pieces
            piece = min(there, MESSAGE_PREFIX - len(self._prefix))
            self._prefix += self._view[self._start : self._start + piece]
            self._start += piece
            self._frame_left -= piece
            if len(self._prefix) == MESSAGE_PREFIX:
                size = self._size(self._prefix, 0)
                self._prefix = bytearray()
                self._begin(size)
            return
        size = self._size(self._scratch, self._start)
        self._start += MESSAGE_PREFIX
        self._frame_left -= MESSAGE_PREFIX
        if size <= there - MESSAGE_PREFIX:
            message = bytes(self._view[self._start : self._start + size])
            self._start += size
            self._frame_left -= size
            self._arrived(message)
        else:
            self._begin(size)

    def _size(self, data: bytearray, at: int) -> int:
        compressed, size = _PREFIX.unpack_from(data, at)
        self._compressed = compressed == 1 and self._client
        if compressed > self._compressed or size > self._max_message:
            raise ProtocolError(f"a message of {size} bytes, compressed: {compressed}")
        return int(size)

    def _begin(self, size: int) -> None:
        """A message begins whose end is not here yet."""
        if size:
            self._body, self._body_size, self._filled = bytearray(min(size, self._first_body)), size, 0
        else:
            self._arrived(b"")

    def _take(self, size: int) -> None:
        """So many bytes of the message under way have arrived in their place."""
        body = self._body
        assert body is not None
        self._filled += size
        self._frame_left -= size
        if self._filled == self._body_size:
            self._body = None
            self._first_body = max(self._first_body, self._filled)
            self._arrived(body)
        elif self._filled == len(body):  # a new one, as the event loop still has a view of this
            self._body = bytearray(min(2 * len(body), self._body_size))
            self._body[: len(body)] = body

    def _arrived(self, message: bytes | bytearray) -> None:
        """A message is here as a whole."""
        self._received(_inflated(message, self._max_message) if self._compressed else message)

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == Frame.SETTINGS:
            if not flags & ACK:
                self._settings(payload)
        elif kind == Frame.WINDOW_UPDATE:
            self._window_update(stream, payload)
        elif kind == Frame.PING:
            if len(payload) != 8:
                raise ProtocolError("a ping that has not 8 bytes")
            if not flags & ACK:
                self._acknowledge(frame(Frame.PING, ACK, 0, payload))
        elif kind == Frame.HEADERS:
            self._headers(flags, stream, payload)
        elif kind in (Frame.RST_STREAM, Frame.PUSH_PROMISE):
            raise ProtocolError(f"a frame of type {kind} ({payload.hex()})")
        elif kind == Frame.GOAWAY:
            self._go_away(payload)
        # the others say nothing that matters

    def _headers(self, flags: int, stream: int, block: bytes) -> None:
        if flags & END_STREAM:
            raise ProtocolError("the peer has ended the stream")
        if not self._path:
            return  # the answer to our own
        if stream != STREAM or self._path not in block or not flags & END_HEADERS:
            raise ProtocolError("another method than was expected")
        self._path = b""
        self._write(RESPONSE)

    def _go_away(self, payload: bytes) -> None:
        """The peer takes no further streams, and closes the connection when it is through with those it has taken."""
        if len(payload) < 8:
            raise ProtocolError("a farewell of less than 8 bytes")
        if self._client:
            if struct.unpack_from(">I", payload)[0] & LARGEST < STREAM:
                raise ProtocolError("the peer leaves without having taken the stream")
            self._leaving()

    def _settings(self, payload: bytes) -> None:
        for name, value in settings(payload):
            if name == Setting.INITIAL_WINDOW_SIZE:
                if value > LARGEST:
                    raise ProtocolError(f"an initial window of {value} bytes")
                self._stream_window += value - self._initial_window
                self._initial_window = value
            elif name == Setting.MAX_FRAME_SIZE:
                if not DEFAULT_FRAME <= value <= MAX_FRAME:
                    raise ProtocolError(f"a largest frame of {value} bytes")
                self.max_frame = value
        self._acknowledge(frame(Frame.SETTINGS, ACK, 0, b""))
        self._flush()

    def _window_update(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError("a window update that has not 4 bytes")
        more = struct.unpack(">I", payload)[0] & LARGEST
        if more == 0:
            raise ProtocolError("a window update by 0 bytes")
        if stream == 0:
            self._window += more
        elif stream == STREAM:
            self._stream_window += more
        if max(self._window, self._stream_window) > LARGEST:
            raise ProtocolError("a flow-control window beyond 2^31 - 1")
        self._flush()

    # ------------------------------------------------------------------ what is sent

    def _flush(self) -> None:
        """Send as much of the backlog as the peer has room for."""
        while self._backlog:
            piece = self._backlog[0]
            room = min(self._window, self._stream_window, self.max_frame)
            if room <= 0:
                return
            part = piece[:room]
            self._window -= len(part)
            self._stream_window -= len(part)
            self._write(frame(_DATA, 0, STREAM, part))
            self._backlog_bytes -= len(part)
            if len(part) == len(piece):
                self._backlog.popleft()
                self._backlog_bytes -= _HELD
            else:
                self._backlog[0] = piece[len(part) :]

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._closed:
            self._transport.write(data)

    def _acknowledge(self, frame: bytes) -> None:
        """Answer a frame of the peer's, which may not ask again and again without reading."""
        self._write(frame)
        self._owed += len(frame)
        if self._unread and self._owed > _MOST_OWED:
            raise ProtocolError(f"{self._owed} bytes of acknowledgements that the peer does not read")

    def _give_up(self, why: str) -> None:
        """End the connection while something is being sent; `lost` hears why as soon as that is over."""
        self._why = ProtocolError(why)
        self.close()

    def _fail(self, error: ProtocolError) -> None:
        """End the connection; `lost` hears why."""
        if not self._closed:
            told, self._lost = self._lost, _unheard
            self.close()
            told(error)


def _unheard(*_: object) -> None:
    """In the place of those who have been told for the last time."""


def _inflated(message: bytes | bytearray, most: int) -> bytes:
    """A compressed message's own bytes.

    Raises:
        ProtocolError: when it is damaged, or has more than `most` bytes.
    """
    inflater = zlib.decompressobj(_ANY_HEADER)
    try:
        plain = inflater.decompress(message, most + 1)
    except zlib.error as error:
        raise ProtocolError(f"a compressed message that is damaged: {error}") from None
    if len(plain) > most or not inflater.eof:
        raise ProtocolError(f"a compressed message that is cut off, or of more than {most} bytes")
    return plain
