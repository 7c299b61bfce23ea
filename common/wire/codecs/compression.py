"""Lossless compression of coded bytes: none, lz4 (quicker) or zstd (smaller).

What a message inflates to is known before it is inflated: exactly the bytes that its shape needs.
"""

from __future__ import annotations

import threading
from typing import Protocol

import lz4.block
import zstandard

from common.errors import Malformed
from common.manifest import COMPRESSIONS
from common.wire.codecs.coded import Buffer

_ZSTD_LEVEL = 1
_MOST_WINDOW = 8 << 20  # bytes that a zstd frame of unknown size may ask for; what every decoder must accept
_local = threading.local()  # zstandard's objects must not be shared between threads


class Compressor(Protocol):
    """Packs bytes and unpacks them again."""

    def pack(self, data: Buffer) -> Buffer:
        """The same bytes in fewer."""
        ...

    def unpack(self, data: Buffer, size: int, name: str) -> Buffer:
        """The `size` bytes of tensor `name`; raises Malformed, and never allocates more than them."""
        ...

    def most(self, size: int) -> int:
        """What `size` bytes can take at most when packed."""
        ...


class Lz4:
    """LZ4 blocks without a stored size."""

    def pack(self, data: Buffer) -> Buffer:
        """One block."""
        packed: bytes = lz4.block.compress(data, store_size=False)
        return packed

    def unpack(self, data: Buffer, size: int, name: str) -> Buffer:
        """One block that must fill the size."""
        try:
            unpacked: bytes = lz4.block.decompress(data, uncompressed_size=size)
        except (lz4.block.LZ4BlockError, ValueError, OverflowError):
            raise Malformed(f"tensor {name!r} is not valid lz4 data of {size} bytes.", "bad_length") from None
        return unpacked

    def most(self, size: int) -> int:
        """LZ4's own bound."""
        return size + size // 255 + 16


class Zstd:
    """Zstandard frames; level 1, the quickest of those that look for matches well."""

    def pack(self, data: Buffer) -> Buffer:
        """One frame that names its content size."""
        if not hasattr(_local, "compressor"):
            _local.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        packed: bytes = _local.compressor.compress(data)
        return packed

    def unpack(self, data: Buffer, size: int, name: str) -> Buffer:
        """One frame that must fill the size."""
        if not hasattr(_local, "decompressor"):
            _local.decompressor = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW)
        try:
            # Checked first: the library allocates what the frame claims.
            claimed = zstandard.frame_content_size(data)
            if claimed not in (-1, size):
                raise Malformed(f"tensor {name!r} inflates to {claimed} bytes. Its shape needs {size}.", "bad_length")
            unpacked: bytes = _local.decompressor.decompress(data, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError:
            raise Malformed(f"tensor {name!r} is not valid zstd data of {size} bytes.", "bad_length") from None
        return unpacked

    def most(self, size: int) -> int:
        """Zstandard's own bound."""
        small = 128 << 10
        return size + (size >> 8) + ((small - size) >> 11 if size < small else 0)


COMPRESSORS: dict[str, Compressor] = {"lz4": Lz4(), "zstd": Zstd()}
assert {"none", *COMPRESSORS} == set(COMPRESSIONS)


def most_bytes(compression: str, size: int) -> int:
    """What `size` coded bytes can take at most."""
    return size if compression == "none" else COMPRESSORS[compression].most(size)
