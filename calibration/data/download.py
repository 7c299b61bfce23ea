"""Fetch a file once, checked against its sha256, into the user's cache."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.request import urlopen

from common.errors import ConfigError

_TIMEOUT_S = 30.0
_MAX_BYTES = 1 << 30
_CHUNK = 1 << 20


def cache_dir() -> Path:
    """Where fetched data is kept: `offramp` under $XDG_CACHE_HOME, or under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offramp"


def fetch(url: str, target: Path, sha256: str) -> None:
    """Fetch a gzipped file and move it to `target` once its unpacked content has the right sha256.

    Raises:
        ConfigError: when it cannot be fetched or its content differs; `target` is not touched then.
    """
    with _fetched(url) as packed:
        try:
            with gzip.open(packed) as file:
                found = _sha256(iter(lambda: file.read(_CHUNK), b""))
        except (OSError, EOFError, zlib.error):
            raise ConfigError(f"{url} did not return a gzip file.") from None
        if found != sha256:
            raise ConfigError(f"{url} has sha256 {found} unpacked. It must be {sha256}.")
        packed.seek(0)
        _put(packed, target)


def fetch_members(url: str, folder: Path, names: Iterable[str], sha256: str) -> None:
    """Fetch a tar archive with the right sha256 and put some of its files into `folder`, whatever folder holds them.

    Raises:
        ConfigError: when it cannot be fetched, differs, or lacks a file; nothing is put down unless it is right.
    """
    with _fetched(url) as packed:
        found = _sha256(iter(lambda: packed.read(_CHUNK), b""))
        if found != sha256:
            raise ConfigError(f"{url} has sha256 {found}. It must be {sha256}.")
        packed.seek(0)
        try:
            with tarfile.open(fileobj=packed) as archive:
                members = {Path(one.name).name: one for one in archive.getmembers() if one.isfile()}
                for name in names:
                    content = archive.extractfile(members[name])
                    assert content is not None
                    _put(content, folder / name)
        except (tarfile.TarError, KeyError, OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"{url} cannot be unpacked: {error}.") from None


@contextmanager
def _fetched(url: str) -> Iterator[IO[bytes]]:
    """The content behind a URL in an unnamed file, from its start."""
    with tempfile.TemporaryFile() as file:
        try:
            with urlopen(url, timeout=_TIMEOUT_S) as reply:
                while chunk := reply.read(_CHUNK):
                    file.write(chunk)
                    if file.tell() > _MAX_BYTES:
                        raise ConfigError(f"{url} has more than {_MAX_BYTES} bytes.")
        except (URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ConfigError(
                f"{url} cannot be fetched: {reason}. Without internet, name a folder with --data-dir."
            ) from None
        file.seek(0)
        yield file


def _sha256(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _put(content: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as file:
        try:
            shutil.copyfileobj(content, file, _CHUNK)
        except BaseException:
            os.unlink(file.name)
            raise
    os.replace(file.name, target)
