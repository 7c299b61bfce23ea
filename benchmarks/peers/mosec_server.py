"""mosec with the same stage."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import orjson
from mosec import Server, Worker

sys.path.insert(0, str(Path(__file__).parent))
from stage import Stage, from_npy, pixels

PORT, BATCH, WAIT_MS = (int(os.environ[name]) for name in ("BENCH_PORT", "BENCH_BATCH", "BENCH_WAIT_MS"))
WORKERS = int(os.environ.get("BENCH_WORKERS", "1"))
SHIPPED = os.environ.get("BENCH_JSON") == "shipped"  # its own json, or the orjson that a careful user takes
sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(PORT), "--log-level", "error"]


class Lenet(Worker):
    """Decides by the first byte whether a body is an npy file, as the worker is not told its type."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Stage()

    def deserialize(self, data: bytes) -> Any:
        if data[:1] == b"\x93":
            return from_npy(data)
        return pixels((super().deserialize(data) if SHIPPED else orjson.loads(data))["inputs"])

    def serialize(self, data: Any) -> bytes:
        return super().serialize(data) if SHIPPED else orjson.dumps(data)

    def forward(self, data: Any) -> Any:
        if BATCH == 1:
            return self.model.answers(data)[0]
        import numpy as np

        return self.model.answers(np.concatenate(data))


if __name__ == "__main__":
    server = Server()
    if BATCH == 1:
        server.append_worker(Lenet, num=WORKERS)
    else:
        server.append_worker(Lenet, num=WORKERS, max_batch_size=BATCH, max_wait_time=WAIT_MS)
    server.run()
