"""LitServe with the same stage."""

import os
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from starlette.requests import Request

sys.path.insert(0, str(Path(__file__).parent))
from stage import Stage, from_npy, pixels

PORT, BATCH, WAIT_MS = (int(os.environ[name]) for name in ("BENCH_PORT", "BENCH_BATCH", "BENCH_WAIT_MS"))


class Lenet(litserve.LitAPI):
    """JSON arrives parsed, anything else as the form that LitServe makes of it."""

    def setup(self, device: str) -> None:
        self.stage = Stage()

    def decode_request(self, request: Request) -> np.ndarray:
        return pixels(request["inputs"]) if "inputs" in request else from_npy(request["file"].file.read())

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(inputs)

    def predict(self, images: np.ndarray) -> Any:
        answers = self.stage.answers(images)
        return answers if BATCH > 1 else answers[0]

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> Any:
        return output


if __name__ == "__main__":
    api = Lenet(max_batch_size=BATCH, batch_timeout=WAIT_MS / 1e3)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="error", access_log=False)
