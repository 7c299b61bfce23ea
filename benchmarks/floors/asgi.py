"""The floor of the REST door: a bare ASGI application that parses the same body and runs the same session.

One request, one run; no checks, no batching, no metrics, no deadlines. The npy head is not even parsed.
"""

from __future__ import annotations

import sys
from typing import Any

import orjson
import uvicorn

from benchmarks.peers.stage import Stage, from_npy, pixels

_stage = Stage()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer one request."""
    chunks = []
    more = True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(chunks) if len(chunks) > 1 else chunks[0]
    is_json = any(name == b"content-type" and value == b"application/json" for name, value in scope["headers"])
    images = pixels(orjson.loads(body)["inputs"]) if is_json else from_npy(body)
    answers = _stage.answers(images)
    reply = orjson.dumps(answers[0] if len(answers) == 1 else answers)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": reply})


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
    )
