"""The parcel between the wings: a directory with `manifest.json` and one ONNX file per stage.

Reading verifies before loading: the bytes that are handed to a runtime are the bytes that were hashed. The
digest, the sha256 of manifest.json, names the bundle at every hop.
"""

from __future__ import annotations

import hashlib
import json
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
        raw = _read(self.root, MANIFEST, limit=_MAX_MANIFEST_BYTES)
        self.digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        if digest is not None and digest != self.digest:
            raise BundleError(f"{self.root} has digest {self.digest}. The configuration asks for {digest}.")
        self.manifest: Manifest = parse_manifest(_strict_json(raw))
        for number, stage in enumerate(self.manifest.stages):
            _inside(self.root, stage.file, f"stages[{number}].file")

    @property
    def name(self) -> str:
        """Name and digest in one, as answers show it."""
        return f"{self.manifest.name}@{self.digest}"

    def holds(self, stage: int) -> bool:
        """Whether the file of `stage` is here; it may still prove damaged."""
        return (self.root / self.manifest.stages[stage].file).is_file()

    def stage_bytes(self, stage: int) -> bytes:
        """Read, verify and return the ONNX file of a stage.

        Raises:
            BundleError: when it is missing, changed, leaves the directory or uses external data.
        """
        entry = self.manifest.stages[stage]
        raw = _read(self.root, entry.file)
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
        file.write(raw)
    os.chmod(file.name, 0o644)
    os.replace(file.name, root / MANIFEST)
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def _inside(root: Path, file: str, where: str) -> Path:
    """The path of `file` in the bundle; refuses any that would lead out of it."""
    pure = PurePosixPath(file)
    if pure.is_absolute() or ".." in pure.parts or "\\" in file or "\0" in file or not pure.parts:
        raise BundleError(f"manifest.json: {where} is {file!r}. It must be a path inside the bundle.")
    path = root / pure
    if not path.resolve().is_relative_to(root.resolve()):
        raise BundleError(f"manifest.json: {where} is {file!r}, which leads out of the bundle.")
    return path


def _read(root: Path, file: str, limit: int | None = None) -> bytes:
    path = _inside(root, file, file) if file != MANIFEST else root / file
    try:
        with open(path, "rb") as source:
            status = os.fstat(source.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path} is not a regular file.")
            if limit is not None and status.st_size > limit:
                raise BundleError(f"{path} has {status.st_size} bytes. At most {limit} are accepted.")
            return source.read()
    except FileNotFoundError:
        raise BundleError(f"{path} is missing.") from None
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

    try:
        return json.loads(raw, parse_constant=no_constant, object_pairs_hook=no_twins)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"manifest.json is not valid JSON: {error}.") from None
