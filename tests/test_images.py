import io
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.errors import Malformed, RequestError, TooLarge
from common.images import JPEG, PNG, is_small, media_type_of, read_image
from common.manifest import ImageSpec
from common.types import Array

PICTURE = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20  # height 3, width 4


def encoded(image: Image.Image | Array, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def grey(size: tuple[int, int] = (3, 4), **more: Any) -> ImageSpec:
    return ImageSpec(tensor="x", mode="L", size=size, **more)


def read(data: bytes, spec: ImageSpec, media_type: str = PNG, max_pixels: int = 10_000) -> Array:
    return read_image(data, media_type, spec, max_pixels=max_pixels)


def refused(data: bytes, media_type: str = PNG, spec: ImageSpec | None = None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(data, spec or grey(), media_type)
    return caught.value


def test_pixels_arrive_unchanged() -> None:
    assert (read(encoded(PICTURE), grey())[0] == PICTURE).all()
    assert (read(encoded(PICTURE), grey(layout="HWC"))[:, :, 0] == PICTURE).all()
    assert (read(encoded(PICTURE), grey(invert=True))[0] == 255 - PICTURE).all()


def test_colours() -> None:
    colours = np.stack([PICTURE, PICTURE + 1, PICTURE + 2], axis=2)
    spec = ImageSpec(tensor="x", mode="RGB", size=(3, 4))
    assert (read(encoded(colours), spec) == colours.transpose(2, 0, 1)).all()
    assert (read(encoded(PICTURE), spec) == PICTURE).all()  # grey in three channels


def test_jpeg_is_near() -> None:
    flat = np.full((16, 16), 77, np.uint8)
    assert np.abs(read(encoded(flat, "JPEG"), grey((16, 16)), JPEG).astype(int) - 77).max() <= 2
    cmyk = encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    assert read(cmyk, grey((16, 16)), JPEG).min() >= 250


def test_sixteen_bits_become_eight() -> None:
    wide = PICTURE.astype(np.uint16) * 256 + 3
    assert (read(encoded(Image.fromarray(wide)), grey())[0] == PICTURE).all()


def test_transparency_lies_on_white() -> None:
    rgba = np.zeros((3, 4, 4), np.uint8)
    rgba[0, :, 3] = 255
    assert read(encoded(rgba), grey())[0].tolist() == [[0] * 4, [255] * 4, [255] * 4]
    palette = Image.fromarray(PICTURE).convert("P")
    palette.putpixel((0, 0), 0)
    seen = read(encoded(palette, transparency=0), grey())[0]
    assert seen[0, 0] == 255
    assert read(encoded(Image.new("LA", (4, 3), (9, 0))), grey()).min() == 255
    assert read(encoded(Image.new("1", (4, 3), 1)), grey()).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_respected(orientation: int) -> None:
    upright = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((16, 24), np.uint8))
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright), 7: np.rot90(upright[::-1], -1).T[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    if orientation == 7:
        stored = upright[::-1, ::-1].T
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind, media_type in (("PNG", PNG), ("JPEG", JPEG)):
        data = encoded(np.ascontiguousarray(stored), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
        seen = read(data, grey(upright.shape, fit="exact"), media_type)[0].astype(int)  # type: ignore[arg-type]
        assert np.abs(seen - upright).mean() < 6


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_note_does_not_spoil_the_picture() -> None:
    data = encoded(np.full((16, 16), 77, np.uint8), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    assert read(data, grey((16, 16)), JPEG).shape == (1, 16, 16)


def test_fit() -> None:
    wide = np.zeros((10, 40), np.uint8)
    wide[:, 15:25] = 200
    data = encoded(wide)
    assert str(refused(data, spec=grey((10, 10), fit="exact"))) == "The body has 40 x 10 pixels. It must have 10 x 10."
    assert (read(data, grey((10, 10), fit="cover"))[0] == 200).mean() > 0.8  # the middle
    contained = read(data, grey((20, 20), fit="contain"))[0]
    assert contained[:7].max() == 0 and contained[13:].max() == 0 and contained[10].max() > 150
    stretched = read(data, grey((10, 10), fit="stretch"))[0]
    assert stretched[:, 5].min() > 150 and stretched[:, 0].max() == 0
    white = encoded(np.full((10, 40), 255, np.uint8))
    assert read(white, grey((20, 20), fit="contain", invert=True)).max() == 0  # what is added is zero, as the paper


def test_other_types_are_not_guessed() -> None:
    png, jpeg, gif = encoded(PICTURE), encoded(PICTURE, "JPEG"), encoded(PICTURE, "GIF")
    assert str(refused(jpeg)) == "The body is not a PNG image."
    assert str(refused(png, JPEG)) == "The body is not a JPEG image."
    assert str(refused(gif)) == "The body is not a PNG image."
    assert str(refused(b"")) == "The body is not a PNG image."
    assert [media_type_of(data) for data in (png, jpeg, gif)] == [PNG, JPEG, None]


@pytest.mark.parametrize("kind", [PNG, JPEG])
def test_what_is_cut_off_is_damaged(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    whole = encoded(noise, "PNG" if kind == PNG else "JPEG")
    for length in range(3, len(whole) - 16, 37):
        error = refused(whole[:length], kind, grey((32, 32)))
        name = "PNG" if kind == PNG else "JPEG"
        assert str(error) in (f"The body is not a {name} image.", f"The body is a damaged {name} image.")


def test_too_many_pixels_are_refused_before_decoding() -> None:
    head = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    bomb = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big")
    idat = b"IDAT" + zlib.compress(bytes(1000))
    bomb += (len(idat) - 4).to_bytes(4, "big") + idat + zlib.crc32(idat).to_bytes(4, "big")
    error = refused(bomb)
    assert isinstance(error, TooLarge)
    assert str(error) == "The body has 100000 x 100000 pixels. At most 10000 are accepted."
    assert not is_small(bomb, PNG)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    whole = encoded(PICTURE, "JPEG", progressive=True)
    assert str(refused(whole + b"\xff\xda" * 64, JPEG)) == "The body is a JPEG image of more than 64 scans."


@given(st.sampled_from([PNG, JPEG]), st.integers(0, 400), st.binary(min_size=1, max_size=6), st.booleans())
def test_damage_anywhere_is_read_or_refused(kind: str, at: int, bytes_: bytes, note: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = encoded(PICTURE, "PNG" if kind == PNG else "JPEG", **({"exif": exif} if note else {}))
    damaged = whole[:at] + bytes_ + whole[at + len(bytes_) :]
    try:
        assert read(damaged, grey(), kind).shape == (1, 3, 4)
    except (Malformed, TooLarge):
        pass
