from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from common.errors import Malformed
from common.manifest import DTYPES, CutTensor
from common.wire.codecs import decode, encode, round_trip

BIG = 1 << 20
shapes = arrays.array_shapes(min_dims=1, max_dims=4, max_side=6)
compressions = st.sampled_from(["none", "zstd"])


@given(st.data(), st.sampled_from(sorted(DTYPES)), shapes, compressions)
def test_raw_returns_every_bit(data: st.DataObject, dtype: str, shape: tuple[int, ...], compression: str) -> None:
    array = data.draw(arrays.arrays(np.dtype(dtype), shape))
    coded = encode(array, CutTensor(name="t", compression=compression))
    back = decode(coded, max_bytes=BIG)
    assert back.dtype == array.dtype and back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(arrays.arrays(np.float32, shapes, elements=st.floats(-1000, 1000, width=32)), compressions)
def test_u8_is_within_half_a_step(array: np.ndarray, compression: str) -> None:
    coded = encode(array, CutTensor(name="t", codec="u8", compression=compression))
    back = decode(coded, max_bytes=BIG)
    assert np.abs(back - array).max() <= 0.5001 * coded.scale + 1e-3
    again = decode(encode(back, CutTensor(name="t", codec="u8")), max_bytes=BIG)
    assert np.allclose(again, back, atol=1e-3), "coding twice changes nothing more"


@given(arrays.arrays(np.float32, (4, 3), elements=st.floats(-10, 10, width=32)))
def test_u8_with_a_calibrated_range_does_not_depend_on_the_batch(array: np.ndarray) -> None:
    how = CutTensor(name="t", codec="u8", low=-2.0, high=3.0)
    together = round_trip(array, how)
    for row in range(len(array)):
        assert np.array_equal(round_trip(array[row : row + 1], how)[0], together[row])
    assert together.min() >= -2.001 and together.max() <= 3.001


def test_non_contiguous_and_big_endian_arrays() -> None:
    array = np.arange(24, dtype=">f4").reshape(4, 6)[:, ::2]
    assert np.array_equal(decode(encode(array, CutTensor(name="t")), max_bytes=BIG), array)


def test_sizes_that_do_not_agree() -> None:
    coded = encode(np.ones((2, 3), np.float32), CutTensor(name="t"))
    with pytest.raises(Malformed, match=r"'t' has 23 bytes\. Shape \[2, 3\] in float32 needs 24"):
        decode(replace(coded, data=coded.data[:-1]), max_bytes=BIG)
    with pytest.raises(Malformed, match=r"declares 24 bytes\. At most 16"):
        decode(coded, max_bytes=16)
    with pytest.raises(Malformed, match="declares"):
        decode(replace(coded, shape=(2**31, 2**31, 2**31)), max_bytes=BIG)


@pytest.mark.parametrize("bomb", [b"\0" * (64 << 20), b"\0" * 25, b"\0" * 23])
def test_zstd_that_inflates_to_another_size(bomb: bytes) -> None:
    coded = encode(np.ones((2, 3), np.float32), CutTensor(name="t", compression="zstd"))
    for compressor in (zstandard.ZstdCompressor(), zstandard.ZstdCompressor(write_content_size=False)):
        with pytest.raises(Malformed, match="'t'"):
            decode(replace(coded, data=compressor.compress(bomb)), max_bytes=BIG)
    with pytest.raises(Malformed, match="not valid zstd"):
        decode(replace(coded, data=b"garbage"), max_bytes=BIG)


@given(st.binary(max_size=200), st.sampled_from(["raw", "u8"]), compressions)
def test_any_bytes_are_refused_or_decoded(data: bytes, codec: str, compression: str) -> None:
    coded = replace(
        encode(np.ones((2, 3), np.float32), CutTensor(name="t")), data=data, codec=codec, compression=compression
    )
    try:
        assert decode(coded, max_bytes=BIG).shape == (2, 3)
    except Malformed:
        pass
