"""Image files, PNG and JPEG, read into the input tensor as the bundle describes it.

The size stands in the file's head and is checked before anything is decoded. What the file says about its
orientation is respected. Transparency is laid on white; 16 bits per channel become 8.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin

from common.errors import Malformed, TooLarge
from common.manifest import ImageSpec
from common.types import Array

PNG, JPEG = "image/png", "image/jpeg"
_NAMES = {PNG: "PNG", JPEG: "JPEG"}
_MAGIC = {PNG: b"\x89PNG\r\n\x1a\n", JPEG: b"\xff\xd8\xff"}
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MAX_SCANS = 64  # of a progressive JPEG; each costs a pass over all pixels
_SCAN = b"\xff\xda"


def read_image(data: bytes, media_type: str, spec: ImageSpec, *, max_pixels: int, what: str = "The body") -> Array:
    """Decode one image file.

    Args:
        data: the file.
        media_type: "image/png" or "image/jpeg", which it must be.
        spec: mode, size, fit, layout and inversion.
        max_pixels: most pixels of the file.
        what: how messages name the file.

    Returns:
        uint8, [C, H, W] or [H, W, C] by the spec's layout; C is 1 or 3.

    Raises:
        Malformed: not an image of that type, damaged, or not of the exact size where the spec asks for it.
        TooLarge: more pixels than accepted.
    """
    image = _opened(data, media_type, what)
    width, height = image.size
    if width * height > max_pixels:
        raise TooLarge(f"{what} has {width} x {height} pixels. At most {max_pixels} are accepted.", "image_too_large")
    try:
        image.load()
        image = _upright(image)
        image = _in_mode(image, spec.mode)
    except Exception:  # whatever a decoder raises on bytes that are not what they say
        raise Malformed(f"{what} is a damaged {_NAMES[media_type]} image.", "bad_image") from None
    pixels_HWC = _fitted(image, spec, what)
    return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1)) if spec.layout == "CHW" else pixels_HWC


def media_type_of(data: bytes) -> str | None:
    """The type that the first bytes of an image file tell."""
    return next((media for media, magic in _MAGIC.items() if data.startswith(magic)), None)


def pixels_of(data: bytes, media_type: str, what: str) -> int:
    """Pixels of the file as its head says; refuses what has no readable head, like `read_image`."""
    image = _opened(data, media_type, what)
    return image.size[0] * image.size[1]


def is_small(data: bytes, media_type: str) -> bool:
    """Whether decoding surely costs less than handing it to a thread."""
    if media_type != PNG or len(data) > 4096 or len(data) < 24:
        return len(data) <= 4096
    width, height = struct.unpack_from(">II", data, 16)
    return bool(width * height <= 128 * 128)


def _opened(data: bytes, media_type: str, what: str) -> Image.Image:
    name = _NAMES[media_type]
    if not data.startswith(_MAGIC[media_type]):
        raise Malformed(f"{what} is not a {name} image.", "bad_image")
    if media_type == JPEG and data.count(_SCAN) > _MAX_SCANS:
        raise Malformed(f"{what} is a JPEG image of more than {_MAX_SCANS} scans.", "bad_image")
    kind = PngImagePlugin.PngImageFile if media_type == PNG else JpegImagePlugin.JpegImageFile
    try:
        return kind(io.BytesIO(data))  # the plain classes: no other format, no guessing, the head only
    except Exception:  # whatever a decoder raises on bytes that are not what they say
        raise Malformed(f"{what} is a damaged {name} image.", "bad_image") from None


def _upright(image: Image.Image) -> Image.Image:
    if "exif" not in image.info:
        return image
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # a damaged note beside a sound picture
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        wide = np.asarray(image).astype(np.uint32)
        image = Image.fromarray((wide >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        paper.alpha_composite(image)
        image = paper.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _fitted(image: Image.Image, spec: ImageSpec, what: str) -> Array:
    """The image at the spec's size, [H, W, C] uint8, inverted where asked; what `contain` adds is zero."""
    height, width = spec.size
    if image.size == (width, height):
        return _pixels(image, spec)
    if spec.fit == "exact":
        raise Malformed(
            f"{what} has {image.size[0]} x {image.size[1]} pixels. It must have {width} x {height}.", "bad_shape"
        )
    if spec.fit == "stretch":
        return _pixels(image.resize((width, height), Image.Resampling.BILINEAR), spec)
    ratios = width / image.size[0], height / image.size[1]
    if spec.fit == "cover":
        scale = max(ratios)
        wide, high = width / scale, height / scale
        left, top = (image.size[0] - wide) / 2, (image.size[1] - high) / 2
        box = (max(left, 0), max(top, 0), min(left + wide, image.size[0]), min(top + high, image.size[1]))
        return _pixels(image.resize((width, height), Image.Resampling.BILINEAR, box=box), spec)
    scale = min(ratios)
    inner = max(1, round(image.size[0] * scale)), max(1, round(image.size[1] * scale))
    pixels = _pixels(image.resize(inner, Image.Resampling.BILINEAR), spec)
    padded = np.zeros((height, width, pixels.shape[2]), np.uint8)
    top_row, left_column = (height - inner[1]) // 2, (width - inner[0]) // 2
    padded[top_row : top_row + inner[1], left_column : left_column + inner[0]] = pixels
    return padded


def _pixels(image: Image.Image, spec: ImageSpec) -> Array:
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return 255 - pixels if spec.invert else pixels
