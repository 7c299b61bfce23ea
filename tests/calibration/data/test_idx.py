import gzip
from pathlib import Path

import numpy as np
import pytest

from calibration.data.idx import find_idx, read_idx
from common.errors import ConfigError
from tests.synthetic import write_idx


@pytest.mark.parametrize("name", ["x-ubyte", "x-ubyte.gz"])
def test_reads_plain_and_gzipped_alike(tmp_path: Path, name: str) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / name, array)
    found = find_idx(tmp_path, "x-ubyte")
    assert found is not None
    read, sha256 = read_idx(found, axes=3)
    assert np.array_equal(read, array)
    write_idx(tmp_path / "other", array)
    assert read_idx(tmp_path / "other", axes=3)[1] == sha256  # of the content, however it is packed


def test_finds_nothing_where_there_is_nothing(tmp_path: Path) -> None:
    assert find_idx(tmp_path, "x") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an idx file"),
        (b"\0\0\x08", "not an idx file"),
        (b"\0\0\x0d\x01\0\0\0\0", "not an idx file"),  # floats
        (b"\0\0\x08\x02\0\0\0\0\0\0\0\0", "not an idx file"),  # two axes
        (b"\0\0\x08\x01\0\0\0\x05abc", "declares .5. bytes but holds 3"),
        (b"\0\0\x08\x01\0\0\0\x01abc", "declares .1. bytes but holds 3"),
        (b"\0\0\x08\x01\0\0", "damaged"),
        (b"\0\0\x08\x01\xff\xff\xff\xff", "damaged"),
    ],
)
def test_refuses_other_files(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read_idx(tmp_path / "x", axes=1)


def test_refuses_broken_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(b"\0\0\x08\x01\0\0\0\x03abc")
    for number, content in enumerate((b"not gzip", packed[:-6], packed[:12] + b"\xff" * 8)):
        path = tmp_path / f"{number}.gz"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be read"):
            read_idx(path, axes=1)
