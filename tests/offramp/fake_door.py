"""A REST door with answers of the test's choice, on a free port of loopback."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOPS = [{"tier": "device", "queue_ms": 0.1, "compute_ms": 0.2, "network_ms": 0.0}]


def answer(label: int = 7, **changes: Any) -> dict[str, Any]:
    base = {"label": label, "name": str(label), "confidence": 0.99, "exit": 0, "tier": "device"}
    return {**base, "degraded": None, "hops": HOPS, **changes}


def answers(*each: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"request_id": "r", "bundle": "net@sha256:0", "answers": list(each or [answer()])}


def refusal(status: int, code: str, message: str) -> tuple[int, Any]:
    return status, {"error": {"code": code, "message": message}}


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    content_type: str | None
    body: bytes


@dataclass
class Door:
    url: str
    address: str
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0


@contextmanager
def fake_door(
    reply: Callable[[Asked], tuple[int, Any]] = lambda asked: answers(), *, close: bool = False
) -> Iterator[Door]:
    """Serve `reply`: a status with a document or raw bytes; `close` ends each connection after one reply."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            door.connections += 1
            super().setup()

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, self.path, self.headers.get("Content-Type"), body)
            door.asked.append(asked)
            status, document = reply(asked)
            data = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if close:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _serve

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        address = f"127.0.0.1:{server.server_address[1]}"
        door = Door(f"http://{address}", address)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield door
        finally:
            server.shutdown()
            thread.join()
