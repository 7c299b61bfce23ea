"""Between the HTTP parser and the rest: parsers, the ASGI scope of a parsed head, and heads without an upgrade."""

from __future__ import annotations

import asyncio
import urllib.parse

import httptools

from common.serving.asgi import Headers, Scope


def http_parser(protocol: object) -> httptools.HttpRequestParser:
    """A parser that calls `protocol`."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # nobody looks at what follows
    return parser


def without_upgrade(method: bytes, target: bytes, headers: Headers) -> bytes:
    """The head again without its wish for another protocol; the connection ends after the answer."""
    kept = b"".join(b"%b: %b\r\n" % field for field in headers if field[0] not in (b"connection", b"upgrade"))
    return b"%b %b HTTP/1.1\r\n%bconnection: close\r\n\r\n" % (method, target, kept)


def http_scope(
    parser: httptools.HttpRequestParser, target: bytes, headers: Headers, transport: asyncio.BaseTransport
) -> Scope:
    """The scope of a request whose head has been parsed.

    Raises:
        HttpParserInvalidURLError, UnicodeDecodeError: when the target is none.
    """
    url = httptools.parse_url(target)
    raw_path = url.path or b"/"
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": parser.get_http_version(),
        "method": parser.get_method().decode("ascii"),
        "scheme": "http",
        "path": urllib.parse.unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": url.query or b"",
        "root_path": "",
        "headers": headers,
        "server": _address(transport, "sockname"),
        "client": _address(transport, "peername"),
    }


def _address(transport: asyncio.BaseTransport, end: str) -> tuple[str, int] | None:
    address = transport.get_extra_info(end)
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None
