"""Bodies of type multipart/form-data: several files and options, in the order in which they stand (RFC 7578)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from common.errors import Malformed, TooLarge
from common.limits import Limits

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a caller's mistake is told to the caller

_MAX_FIELDS = 16  # parts that are options
_MAX_TEXT = 256  # bytes of an option


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the body."""

    name: str
    is_file: bool  # it has a file name, or a type that is not text; else it is a field of the form
    media_type: str  # lower case; empty where the part names none
    data: bytes


def read_parts(body: bytes, content_type: str, limits: Limits) -> list[Part]:
    """Take the body apart.

    Args:
        body: all of it.
        content_type: the header, with the boundary.
        limits: one file per row at most.

    Raises:
        Malformed: no boundary, or a body that does not keep to it.
        TooLarge: more parts than accepted, or an option that is too long.
    """
    _, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise Malformed("The content-type multipart/form-data has no boundary.", "bad_multipart")
    collector = _Collector(limits.batch_rows)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.begin,
                "on_part_data": collector.data,
                "on_part_end": collector.end,
                "on_header_field": collector.header_field,
                "on_header_value": collector.header_value,
                "on_header_end": collector.header_end,
                "on_end": collector.finish,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        collector.finished = False
    if not collector.finished:
        raise Malformed("The body is not valid multipart/form-data, or is cut off.", "bad_multipart")
    return collector.parts


class _Collector:
    """Receives the parser's events and makes parts of them."""

    def __init__(self, max_files: int) -> None:
        self.parts: list[Part] = []
        self.finished = False
        self._max_files = max_files
        self._files = 0
        self._field = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []

    def begin(self) -> None:
        self._headers = {}
        self._pieces = []

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def end(self) -> None:
        kind, parameters = parse_options_header(self._headers.get(b"content-disposition", b""))
        if kind != b"form-data" or b"name" not in parameters:
            raise Malformed("A part has no content-disposition: form-data with a name.", "bad_multipart")
        media_type, _ = parse_options_header(self._headers.get(b"content-type", b""))
        part = Part(
            name=parameters[b"name"].decode("utf-8", "replace"),
            is_file=b"filename" in parameters or media_type.partition(b"/")[0] not in (b"", b"text"),
            media_type=media_type.decode("latin-1"),
            data=b"".join(self._pieces),
        )
        self._count(part)
        self.parts.append(part)

    def finish(self) -> None:
        self.finished = True

    def _count(self, part: Part) -> None:
        if part.is_file:
            self._files += 1
            if self._files > self._max_files:
                raise TooLarge(f"The body has more than {self._max_files} files.", "batch_too_large")
        elif len(self.parts) - self._files >= _MAX_FIELDS:
            raise TooLarge(f"The body has more than {_MAX_FIELDS} form fields.", "too_many_fields")
        elif len(part.data) > _MAX_TEXT:
            raise TooLarge(
                f"Form field {part.name[:40]!r} has {len(part.data)} bytes. At most {_MAX_TEXT} are accepted. "
                "A file needs a file name or a type.",
                "too_large",
            )
