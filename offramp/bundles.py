"""Opening a bundle from Python."""

from __future__ import annotations

from pathlib import Path

from common.bundle import Bundle


def load_bundle(path: str | Path, *, digest: str | None = None) -> Bundle:
    """Open a bundle and verify every file in it.

    Args:
        path: the bundle's directory.
        digest: when given, the digest that it must have ("sha256:...").

    Raises:
        BundleError: when it is damaged, incomplete, unsafe or too new.
    """
    bundle = Bundle(path, digest=digest)
    bundle.verify()
    return bundle
