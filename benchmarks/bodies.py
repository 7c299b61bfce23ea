"""The same images as request bodies for every server: JSON of 784 numbers, or the bytes of an array file."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import numpy as np
from PIL import Image

from benchmarks.paths import BUNDLE, IMAGES
from benchmarks.resnet import pool
from common.bundle import Bundle
from common.criteria import softmax
from common.runtimes.onnx import OnnxStage


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Images that the first exit accepts at operating point `default`, and what it says about them."""

    images: np.ndarray  # [N, 1, 28, 28] uint8
    labels: list[int]
    of: int  # how many images there were to choose from


def accepted_inputs(count: int = 64) -> Inputs:
    """The first images of examples/mnist that the bundle's first exit accepts."""
    bundle = Bundle(BUNDLE)
    images = np.stack([np.asarray(Image.open(path))[None] for path in sorted(IMAGES.glob("*.png"))])
    leave = bundle.manifest.exits[0]
    probs = softmax(OnnxStage.load(bundle, 0, 1).run({"image": images})[leave.logits], leave.temperature)
    accepted = np.flatnonzero(probs.max(axis=1) >= bundle.manifest.operating_points["default"].thresholds[0])[:count]
    return Inputs(images=images[accepted], labels=probs.argmax(axis=1)[accepted].tolist(), of=len(images))


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a server wants its requests: where, of which type, and the body of one image."""

    path: str
    content_type: str
    headers: str = ""

    def request(self, body: bytes, extra: str = "") -> bytes:
        """A whole HTTP/1.1 request."""
        head = f"POST {self.path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {self.content_type}\r\n"
        return f"{head}{self.headers}{extra}content-length: {len(body)}\r\n\r\n".encode() + body


_JSON, _NPY = "application/json", "application/x-npy"
_BOUNDARY = "benchmark-boundary"
_KSERVE = "/v1/models/lenet:predict"
FORMS = {
    "json": Form(path="/predict", content_type=_JSON),
    "npy": Form(path="/predict", content_type=_NPY),
    "full": Form(path="/predict?operating_point=full", content_type=_JSON),  # every row goes up to the last exit
    "kserve-json": Form(path=_KSERVE, content_type=_JSON),
    "kserve-binary": Form(path="/v2/models/lenet/infer", content_type="application/octet-stream"),
    "mosec-json": Form(path="/inference", content_type=_JSON),
    "mosec-npy": Form(path="/inference", content_type=_NPY),
    "multipart-npy": Form(path="/predict", content_type=f"multipart/form-data; boundary={_BOUNDARY}"),
}


def requests(form: str, inputs: Inputs) -> list[bytes]:
    """One whole request per image."""
    return [_request(form, image) for image in inputs.images]


def _request(name: str, image: np.ndarray) -> bytes:
    form = FORMS[name]
    if name == "kserve-binary":
        head = {"inputs": [{"name": "image", "shape": [1, 1, 28, 28], "datatype": "UINT8"}]}
        head["inputs"][0]["parameters"] = {"binary_data_size": image.nbytes}
        text = json.dumps(head, separators=(",", ":")).encode()
        return form.request(text + image.tobytes(), f"inference-header-content-length: {len(text)}\r\n")
    if name.endswith("npy"):
        file = _npy(image[None])
        return form.request(file if form.content_type == _NPY else _multipart(file))
    key = "instances" if name == "kserve-json" else "inputs"
    return form.request(json.dumps({key: [image.reshape(-1).tolist()]}, separators=(",", ":")).encode())


def row_requests(form: str, inputs: Inputs) -> list[bytes]:
    """Array files of several rows; `form` is rows:<operating point>:<rows>, of ResNet-20's pool, or lenet:<rows>."""
    which, *point, count = form.split(":")
    to = Form(path=f"/predict?operating_point={point[0]}" if point else "/predict", content_type=_NPY)
    rows = pool() if which == "rows" else np.tile(inputs.images, (-(-2 * int(count) // len(inputs.images)), 1, 1, 1))
    return [to.request(_npy(rows[at : at + int(count)])) for at in range(0, len(rows) - int(count) + 1, int(count))]


def _npy(rows: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    return buffer.getvalue()


def _multipart(file: bytes) -> bytes:
    head = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="a.npy"\r\n'
    return f"{head}content-type: {_NPY}\r\n\r\n".encode() + file + f"\r\n--{_BOUNDARY}--\r\n".encode()
