"""KServe with the same stage: its v1 protocol for JSON, its v2 protocol's binary tensors for raw bytes."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

sys.path.insert(0, str(Path(__file__).parent))
from stage import Stage, pixels

PORT = int(os.environ["BENCH_PORT"])
logging.disable(logging.WARNING)


class Lenet(Model):
    """One image, one answer."""

    def __init__(self) -> None:
        super().__init__("lenet")
        self.stage = Stage()
        self.ready = True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        if not isinstance(payload, InferRequest):
            return {"predictions": self.stage.answers(pixels(payload["instances"]))}
        answer = self.stage.answers(payload.inputs[0].as_numpy().reshape(-1, 1, 28, 28))[0]
        label = InferOutput("label", [1], "INT64")
        label.set_data_from_numpy(np.array([answer["label"]]), binary_data=False)
        confidence = InferOutput("confidence", [1], "FP32")
        confidence.set_data_from_numpy(np.array([answer["confidence"]], np.float32), binary_data=False)
        return InferResponse("", "lenet", [label, confidence])


def _on_loopback() -> None:
    """KServe listens on every address and has no setting for it."""
    import kserve.protocol.rest.server as rest

    class Config(rest.uvicorn.Config):
        def __init__(self, app: Any, **settings: Any) -> None:
            super().__init__(app, **{**settings, "host": "127.0.0.1"})

    rest.uvicorn.Config = Config


if __name__ == "__main__":
    _on_loopback()
    server = ModelServer(http_port=PORT, enable_grpc=False, workers=1, enable_docs_url=False, access_log_format=None)
    server.start([Lenet()])
