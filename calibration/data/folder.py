"""A folder of images: one subfolder per class, either directly or under `train` and `test`.

Images are decoded as a door decodes them, so that what was trained on is what is served.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from calibration.data.examples import Examples
from calibration.data.files import content
from calibration.data.rows import Given
from calibration.settings import DataSettings
from common.errors import ConfigError, RequestError
from common.images import media_type_of, read_image
from common.manifest import ImageSpec
from common.types import Array

_SUFFIXES = (".png", ".jpg", ".jpeg")
_IGNORED = ("thumbs.db", "desktop.ini")
_GREY = ("1", "L", "I", "I;16", "I;16B", "I;16L")
_MAX_PIXELS = 100_000_000  # of one file
_MAX_BYTES = 8 << 30  # of all images together, decoded
_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Image files of one split and the class of each."""

    root: Path
    paths: tuple[Path, ...]
    labels: tuple[int, ...]


def read_folder(root: Path, test: Path | None, settings: DataSettings) -> Given:
    """Images [N, C, H, W] uint8 with their classes.

    Args:
        root: has one subfolder per class, or `train` and `test` with these in them.
        test: a folder of its own for test rows, or None.
        settings: size (else that of the images, if they agree), mode (else grey if all are), fit, name of the input.

    Raises:
        ConfigError: naming the file or folder that is wrong.
    """
    train, test = _split_folders(root, test)
    classes = _class_folders(train)
    names = [folder.name for folder in classes]
    sides = [_files(train, names)]
    for label, folder in enumerate(classes):
        if label not in sides[0].labels:
            raise ConfigError(f"{folder} holds no images: the class {folder.name!r} has none to train on.")
    if test is not None:
        unknown = [folder.name for folder in _class_folders(test) if folder.name not in names]
        if unknown:
            raise ConfigError(f"{test / unknown[0]}: the train images have no class {unknown[0]!r}.")
        sides.append(_files(test, names))
    spec = _spec([path for side in sides for path in side.paths], settings)
    read = [_read(side, spec, tuple(names), settings) for side in sides]
    return Given(train=read[0], test=read[1] if test is not None else None)


def _split_folders(root: Path, test: Path | None) -> tuple[Path, Path | None]:
    inside = {folder.name: folder for folder in _folders(root)}
    if "train" not in inside:
        if "test" in inside and len(inside) == 1:
            raise ConfigError(f"{root} has a folder test but none called train.")
        return root, test
    others = sorted(set(inside) - {"train", "test"})
    if others:
        raise ConfigError(
            f"{root / others[0]} lies beside train and would not be read. Move its images into train or test, or name "
            "other folders: data.dataset for the train images, data.test for the test images."
        )
    if "test" in inside and test is not None:
        raise ConfigError(f"data.test names {test}, but {root} has a folder test.")
    return inside["train"], inside.get("test", test)


def _folders(root: Path) -> list[Path]:
    try:
        inside = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"{root} cannot be read: {error.strerror}.") from None
    found = [path for path in inside if path.is_dir()]
    for path in inside if found else []:
        if path.suffix.lower() in _SUFFIXES and path not in found:
            raise ConfigError(f"{path} lies beside folders and would not be read. Move it into one of them.")
    return found


def _class_folders(root: Path) -> list[Path]:
    found = _folders(root)
    if not found:
        raise ConfigError(f"{root} has no subfolders. Each class of images must have one, named like the class.")
    return found


def _files(root: Path, classes: Sequence[str]) -> _Files:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        inside = sorted(path for path in (root / name).rglob("*") if not path.is_dir())
        kept = [path for path in inside if not path.name.startswith(".") and path.name.lower() not in _IGNORED]
        for path in kept:
            if path.suffix.lower() not in _SUFFIXES:
                raise ConfigError(f"{path} is no image that can be read. Images end with {', '.join(_SUFFIXES)}.")
        paths += kept
        labels += [label] * len(kept)
    if not paths:
        raise ConfigError(f"{root} holds no images.")
    return _Files(root=root, paths=tuple(paths), labels=tuple(labels))


def _spec(paths: Sequence[Path], settings: DataSettings) -> ImageSpec:
    """Size and mode of all images: as the settings say, else as the files do."""
    size, mode = settings.size, settings.mode
    if size is not None and (len(size) != 2 or not all(1 <= side <= 10_000 for side in size)):
        raise ConfigError(f"data.size is {size}. It must be [height, width].")
    if size is None or mode is None:
        with ThreadPoolExecutor(_THREADS) as pool:
            heads = list(pool.map(_head, paths))
        if size is None:
            for path, (found, _) in zip(paths, heads, strict=True):
                if found != heads[0][0]:
                    raise ConfigError(
                        f"{path} has {found[0]} x {found[1]} pixels, {paths[0]} has "
                        f"{heads[0][0][0]} x {heads[0][0][1]}. "
                        "data.size: [height, width] brings all images to one size."
                    )
            size = [heads[0][0][1], heads[0][0][0]]
        mode = mode or ("L" if all(grey for _, grey in heads) else "RGB")
    total = len(paths) * size[0] * size[1] * (1 if mode == "L" else 3)
    if total > _MAX_BYTES:
        raise ConfigError(
            f"{len(paths)} images of {size[0]} x {size[1]} take {total / 2**30:.1f} GiB, more than "
            f"{_MAX_BYTES >> 30}. A smaller data.size makes them fit."
        )
    assert mode is not None
    return ImageSpec(tensor="image", mode=mode, size=(size[0], size[1]), fit=settings.fit or "stretch")


def _head(path: Path) -> tuple[tuple[int, int], bool]:
    """Width and height of an image as it is shown, and whether it is grey."""
    raw = content(path)
    try:
        with Image.open(io.BytesIO(raw)) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            size = (image.size[1], image.size[0]) if turned else image.size
            return size, image.mode in _GREY
    except Exception:  # whatever a decoder raises on bytes that are not what they say
        raise ConfigError(f"{path} is no image, or it is damaged.") from None


def _read(files: _Files, spec: ImageSpec, classes: tuple[str, ...], settings: DataSettings) -> Examples:
    channels = 1 if spec.mode == "L" else 3
    images_NCHW = np.empty((len(files.paths), channels, *spec.size), np.uint8)

    def decode(number: int) -> bytes:
        raw = content(files.paths[number])
        images_NCHW[number] = _decoded(raw, files.paths[number], spec)
        return hashlib.sha256(raw).digest()

    with ThreadPoolExecutor(_THREADS) as pool:
        digests = list(pool.map(decode, range(len(files.paths))))
    every = hashlib.sha256()
    for path, digest in zip(files.paths, digests, strict=True):
        every.update(path.relative_to(files.root).as_posix().encode() + b"\0" + digest)
    name = settings.input[0] if settings.input else "image"
    return Examples(
        inputs={name: images_NCHW},
        labels_N=np.array(files.labels, np.int64),
        sha256={files.root.name: every.hexdigest()},
        classes=classes,
        fit=spec.fit,
    )


def _decoded(raw: bytes, path: Path, spec: ImageSpec) -> Array:
    media = media_type_of(raw)
    if media is None:
        raise ConfigError(f"{path} is neither a PNG nor a JPEG image.")
    try:
        return read_image(raw, media, spec, max_pixels=_MAX_PIXELS, what=str(path))
    except RequestError as error:
        raise ConfigError(str(error)) from None
