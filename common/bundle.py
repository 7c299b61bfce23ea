"""The parcel between the wings: a directory with `manifest.json` and one ONNX file per stage.

Reading verifies before loading: the bytes that are handed to a runtime are the bytes that were hashed. The
digest, the sha256 of manifest.json, names the bundle at every hop.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from common.errors import BundleError
from common.manifest import Manifest
from common.manifest_reader import parse_manifest
from common.onnx_scan import refuse_external_data

MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 16 << 20
_MAX_STAGE_BYTES = (2 << 30) - 1  # what protobuf, and so an ONNX file, can hold


class Bundle:
    """A bundle on disk whose manifest has been checked.

    Args:
        root: the directory.
        digest: when given, the digest that it must have ("sha256:...").

    Raises:
        BundleError: when there is no readable manifest, or its digest differs.
    """

    def __init__(self, root: str | Path, *, digest: str | None = None) -> None:
        self.root = Path(root)
        raw = _read(self.root, MANIFEST, _MAX_MANIFEST_BYTES)
        self.digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        if digest is not None and digest != self.digest:
            raise BundleError(f"{self.root} has digest {self.digest}. The configuration asks for {digest}.")
        self.manifest: Manifest = parse_manifest(_strict_json(raw))
        self.name = f"{self.manifest.name}@{self.digest}"  # as answers show it
        for number, stage in enumerate(self.manifest.stages):
            _inside(self.root, stage.file, f"stages[{number}].file")

    def holds(self, stage: int) -> bool:
        """Whether the file of `stage` is here; it may still prove damaged."""
        return (self.root / self.manifest.stages[stage].file).is_file()

    def stage_bytes(self, stage: int) -> bytes:
        """Read, verify and return the ONNX file of a stage.

        Raises:
            BundleError: when it is missing, changed, leaves the directory or uses external data.
        """
        entry = self.manifest.stages[stage]
        raw = _read(self.root, entry.file, _MAX_STAGE_BYTES)
        if hashlib.sha256(raw).hexdigest() != entry.sha256:
            raise BundleError(f"{self.root / entry.file} does not match its sha256 in manifest.json: it was changed.")
        refuse_external_data(raw, str(self.root / entry.file))
        return raw

    def verify(self) -> None:
        """Verify every stage file; raises BundleError at the first that is wrong."""
        for number in range(len(self.manifest.stages)):
            self.stage_bytes(number)


def write_manifest(root: Path, document: Mapping[str, Any]) -> str:
    """Check and write manifest.json in one step that never leaves half a file; returns the digest.

    Raises:
        BundleError: when the document would not be read back.
    """
    raw = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    parse_manifest(_strict_json(raw))
    with tempfile.NamedTemporaryFile(dir=root, prefix=".manifest-", delete=False) as file:
        try:
            file.write(raw)
            file.flush()
            os.chmod(file.name, 0o644)
            os.replace(file.name, root / MANIFEST)
        except BaseException:
            os.unlink(file.name)
            raise
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def _inside(root: Path, file: str, where: str) -> Path:
    """The path of `file` in the bundle; refuses any that would lead out of it."""
    pure = PurePosixPath(file)
    if pure.is_absolute() or ".." in pure.parts or "\\" in file or not file.isprintable() or not pure.parts:
        raise BundleError(f"manifest.json: {where} is {file!a}. It must be a path inside the bundle.")
    path = root / pure
    try:
        stays = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a link to itself
        raise BundleError(f"{path} cannot be read: its links lead nowhere.") from None
    if not stays:
        raise BundleError(f"manifest.json: {where} is {file!r}, which leads out of the bundle.")
    return path


def _read(root: Path, file: str, limit: int) -> bytes:
    path = _inside(root, file, file) if file != MANIFEST else root / file
    try:
        # Without waiting: a pipe in place of a file must not hold the reader up.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as source:
            status = os.fstat(source.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path} is not a regular file.")
            if status.st_size > limit:
                raise BundleError(f"{path} has {status.st_size} bytes. At most {limit} are accepted.")
            return source.read()
    except FileNotFoundError:
        raise BundleError(f"{path} is missing.") from None
    except MemoryError:
        raise BundleError(f"{path} does not fit into this machine's memory.") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from None


def _strict_json(raw: bytes) -> object:
    def no_constant(name: str) -> object:
        raise ValueError(f"{name} is not JSON")

    def no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key appears twice")
        return result

    def finite(text: str) -> float:
        value = float(text)
        if math.isinf(value):
            raise ValueError(f"{text[:40]} is too large")
        return value

    try:
        return json.loads(raw.decode(), parse_constant=no_constant, parse_float=finite, object_pairs_hook=no_twins)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"manifest.json is not valid JSON: {error}.") from None
