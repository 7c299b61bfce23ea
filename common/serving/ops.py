"""The ops door: live, ready and /metrics, for probes and Prometheus, as a bare ASGI application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from common.serving.asgi import Receive, Scope, Send, error_body
from common.serving.core import Core

_JSON = b"application/json"
_METRICS = b"text/plain; version=0.0.4; charset=utf-8"
_PATHS = ("/live", "/ready", "/v2/health/live", "/v2/health/ready", "/metrics")


class OpsDoor:
    """Answers probes and scrapes of one tier.

    Args:
        core: the tier.
        metrics: gives its metrics in Prometheus' text form.
    """

    def __init__(self, core: Core, metrics: Callable[[], Awaitable[bytes]]) -> None:
        self._core = core
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        status, kind, body = await self._respond(scope["method"], scope["path"])
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _respond(self, method: str, path: str) -> tuple[int, bytes, bytes]:
        if path not in _PATHS:
            return 404, _JSON, error_body("not_found", f"There are {', '.join(_PATHS)} here.")
        if method not in ("GET", "HEAD"):
            return 405, _JSON, error_body("method_not_allowed", "Only GET and HEAD are accepted here.")
        if path == "/metrics":
            return 200, _METRICS, await self._metrics()
        if path.endswith("live"):
            return 200, _JSON, b'{"live": true}'
        return (200, _JSON, b'{"ready": true}') if self._core.ready else (503, _JSON, b'{"ready": false}')
