"""A directory that appears at its place only once it is complete."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.bundle import MANIFEST
from common.errors import ConfigError


@contextmanager
def placed(out: Path) -> Iterator[Path]:
    """Give a new directory beside `out`, and move it to `out` when the block ends well.

    A bundle or an empty directory at `out` is replaced; when the block fails, `out` is as it was.

    Raises:
        ConfigError: when something else lies at `out`, or the place cannot be written.
    """
    out = out.absolute()
    if out.exists() and not (out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir()))):
        raise ConfigError(f"{out} exists and is not a bundle. Choose another --out, or remove it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}.") from None
    try:
        fresh, old = work / "new", work / "old"
        fresh.mkdir()
        yield fresh
        if out.exists():
            out.rename(old)
        try:
            fresh.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
