"""The types of ASGI, as far as the doors need them (https://asgi.readthedocs.io)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")


async def send_json(send: Send, status: int, body: bytes, headers: Headers | None = None) -> None:
    """Send a whole JSON response."""
    length = (b"content-length", b"%d" % len(body))
    await send(
        {"type": "http.response.start", "status": status, "headers": [JSON_TYPE, length, *(headers or ())]},
    )
    await send({"type": "http.response.body", "body": body})


def without_body(send: Send) -> Send:
    """A `send` for the answer to HEAD: the head that GET would have."""

    async def bodiless(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return bodiless


def error_body(code: str, message: str) -> bytes:
    """The one form that every error has over HTTP."""
    return orjson.dumps({"error": {"code": code, "message": message}})
