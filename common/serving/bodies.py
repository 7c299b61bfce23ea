"""Every body type of a prediction, by its content type: JSON, npy, PNG, JPEG, and several files in multipart.

JSON, npy and protocol tensors are raw values as the sensor gives them; images are decoded as the bundle says.
Options stand in the query string, or in the JSON object, or as form fields; each only once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from common.errors import BundleError, Malformed, TooLarge, Unprocessable, UnsupportedType
from common.images import JPEG, PNG, is_small, media_type_of, pixels_of, read_image
from common.limits import Limits
from common.manifest import ImageSpec, Manifest
from common.serving.admission import admit, bucket_sizes, check_rows, check_shape, pad, typed
from common.serving.json_body import JsonBody
from common.serving.known_files import KnownFiles
from common.serving.multipart import Part, read_parts
from common.serving.npy import MAGIC, read_npy
from common.serving.options import DEFAULTS, Options, add_text, options_from_json, options_from_query
from common.types import Array, Tensors

JSON, NPY, MULTIPART = "application/json", "application/x-npy", "multipart/form-data"
_INLINE_BYTES = 1 << 20  # a longer body is read in a thread, so that other requests go on
_UNKNOWN_FILE = ("", "application/octet-stream")
_CHARSET = re.compile(r'charset\s*=\s*"?([^";\s]+)', re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class Parsed:
    """What a body asks for."""

    rows: Final[int]
    tensors: Final[Tensors]  # [B, ...] each, as the first stage takes them
    options: Final[Options]


class Bodies:
    """Reads the bodies of predictions for one bundle.

    Raises:
        BundleError: when the bundle's image description does not make its input tensor.
    """

    def __init__(self, manifest: Manifest, limits: Limits) -> None:
        self._manifest = manifest
        self._limits = limits
        self._json = JsonBody(manifest, limits)
        self._first = manifest.inputs[0]
        self._files = KnownFiles(manifest.tensors[self._first])
        self._image = manifest.image if len(manifest.inputs) == 1 else None
        if self._image is not None:
            _check_image(manifest, self._image)
        self._readers: dict[str, Callable[[bytes, str, Mapping[str, object]], Parsed]] = {JSON: self._read_json}
        if len(manifest.inputs) == 1:
            self._readers |= {NPY: self._read_npy, MULTIPART: self._read_multipart}
        if self._image is not None:
            self._readers |= {PNG: self._read_image, JPEG: self._read_image}
        self.types = tuple(self._readers)

    def media_type(self, content_type: str) -> str:
        """The body type of a content-type header.

        Raises:
            UnsupportedType: when this bundle takes no such bodies.
        """
        if content_type in self._readers:
            return content_type
        media_type, _, parameters = content_type.partition(";")
        media_type = media_type.strip().lower()
        if media_type not in self._readers:
            has = f"The body has type {media_type[:80]}" if media_type else "The body has no content-type"
            raise UnsupportedType(f"{has}. It must be one of {', '.join(self.types)}.")
        charset = _CHARSET.search(parameters)
        if media_type == JSON and charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedType(f"The body has charset {charset[1][:40]}. JSON must be utf-8.")
        return media_type

    def is_quick(self, body: bytes, media_type: str) -> bool:
        """Whether reading the body surely takes less time than another thread would cost."""
        if media_type == PNG or media_type == JPEG:
            return is_small(body, media_type)
        return media_type != MULTIPART and len(body) <= _INLINE_BYTES

    def read_quickly(self, body: bytes, content_type: str, query: bytes) -> Parsed | None:
        """As `read`; None for a body that had better be read in another thread."""
        media_type = content_type if content_type in self._readers else self.media_type(content_type)
        if not self.is_quick(body, media_type):
            return None
        return self._readers[media_type](body, content_type, options_from_query(query) if query else {})

    def read(self, body: bytes, content_type: str, query: bytes = b"") -> Parsed:
        """Read a body.

        Args:
            body: all of it.
            content_type: the header.
            query: the raw query string, with options.

        Raises:
            UnsupportedType, Malformed, Unprocessable, TooLarge: one sentence each.
        """
        given = options_from_query(query) if query else {}
        return self._readers[self.media_type(content_type)](body, content_type, given)

    def _read_json(self, body: bytes, content_type: str, given: Mapping[str, object]) -> Parsed:
        tensors, options = self._json.read(body, given)
        return Parsed(rows=len(tensors[self._first]), tensors=tensors, options=options)

    def _read_npy(self, body: bytes, content_type: str, given: Mapping[str, object]) -> Parsed:
        batch = self._files.find(body)
        if batch is not None:
            options = options_from_json(given) if given else DEFAULTS
            return Parsed(rows=len(batch), tensors={self._first: batch}, options=options)
        batch = read_npy(body, self._manifest.tensors[self._first])
        parsed = self._parsed({self._first: batch}, given)
        if parsed.tensors[self._first] is batch:
            self._files.learn(body, batch)
        return parsed

    def _read_image(self, body: bytes, content_type: str, given: Mapping[str, object]) -> Parsed:
        media_type = self.media_type(content_type)
        return self._parsed({self._first: self._decoded(body, media_type, "The body")}, given)

    def _read_multipart(self, body: bytes, content_type: str, given: Mapping[str, object]) -> Parsed:
        options = dict(given)
        batches: list[Array] = []
        rows = pixels = 0
        for part in read_parts(body, content_type, self._limits):
            if not part.is_file:
                add_text(options, part.name, part.data.decode("utf-8", "replace"))
                continue
            what = f"files[{len(batches)}]"
            media_type = self._type_of(part, what)
            if media_type != NPY:
                pixels += pixels_of(part.data, media_type, what)
                if pixels > self._limits.request_pixels:
                    raise TooLarge(
                        f"The images have more than {self._limits.request_pixels} pixels together.", "image_too_large"
                    )
            batches.append(self._batch(part.data, media_type, what))
            rows += len(batches[-1])
            if rows > self._limits.batch_rows:
                check_rows(rows, self._limits)
        check_rows(rows, self._limits)
        return self._parsed({self._first: self._joined(batches)}, options)

    def _type_of(self, part: Part, what: str) -> str:
        media_type: str | None = part.media_type
        if part.media_type in _UNKNOWN_FILE:
            media_type = NPY if part.data.startswith(MAGIC) else media_type_of(part.data)
        if media_type not in self._readers or media_type in (JSON, MULTIPART):
            shown = f"type {part.media_type[:80]}" if part.media_type else "no type"
            files = ", ".join(kind for kind in self.types if kind not in (JSON, MULTIPART))
            raise UnsupportedType(f"{what} has {shown}. It must be one of {files}.")
        assert media_type is not None
        return media_type

    def _batch(self, data: bytes, media_type: str, what: str) -> Array:
        """The rows of one file, [B, ...], checked and in the tensor's dtype."""
        spec = self._manifest.tensors[self._first]
        if media_type != NPY:
            return typed(self._decoded(data, media_type, what), spec)
        batch = read_npy(data, spec, what)
        try:
            check_shape(batch, spec, {})
            return typed(batch, spec)
        except Malformed as error:
            raise Malformed(f"{what}: {error}", error.code) from None

    def _decoded(self, data: bytes, media_type: str, what: str) -> Array:
        assert self._image is not None
        pixels = read_image(data, media_type, self._image, max_pixels=self._limits.image_pixels, what=what)
        shape = self._manifest.tensors[self._first].shape
        return pixels.reshape(1, *map(int, shape))

    def _joined(self, batches: list[Array]) -> Array:
        """All rows in order; rows of different symbolic sizes are padded to the bucket of the longest."""
        spec = self._manifest.tensors[self._first]
        longest: dict[str, int] = {}
        for batch in batches:
            for symbol, size in zip(spec.shape, batch.shape[1:], strict=True):
                if isinstance(symbol, str):
                    longest[symbol] = max(size, longest.get(symbol, 0))
        sizes = bucket_sizes(self._manifest, longest)
        return np.concatenate([pad(batch, spec, sizes) for batch in batches])

    def _parsed(self, tensors: Tensors, options: Mapping[str, object]) -> Parsed:
        tensors = admit(self._manifest, 0, tensors, self._limits)
        read = options_from_json(options) if options else DEFAULTS
        return Parsed(rows=len(tensors[self._first]), tensors=tensors, options=read)


def check_point(name: str, manifest: Manifest) -> None:
    """Refuse an operating point that the bundle does not have (Unprocessable)."""
    if name not in manifest.operating_points:
        raise Unprocessable(
            f"operating_point is {name[:80]!r}. It must be one of {', '.join(manifest.operating_points)}.",
            "unknown_operating_point",
        )


def _check_image(manifest: Manifest, image: ImageSpec) -> None:
    spec = manifest.tensors[image.tensor]
    channels = {"L": 1, "RGB": 3}[image.mode]
    shapes: list[tuple[int, ...]] = [(channels, *image.size) if image.layout == "CHW" else (*image.size, channels)]
    if channels == 1:
        shapes.append(image.size)
    if spec.shape not in shapes or spec.dtype in ("bool", "int8"):
        raise BundleError(
            f"manifest.json: input.image makes {image.mode} pixels of shape {list(shapes[0])}. "
            f"Tensor {spec.name!r} is {spec.dtype} of shape {list(spec.shape)}."
        )
