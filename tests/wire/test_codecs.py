from dataclasses import replace

import lz4.block
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from common.errors import Malformed
from common.manifest import AFFINE, CODECS, COMPRESSIONS, DTYPES, PER_CHANNEL, CutTensor
from common.wire.codecs import REGISTRY, Coded, decode, encode, round_trip, stored_at_most, travels
from common.wire.messages import tensor_from_wire, tensor_header
from protos import tier_pb2 as pb

BIG = 1 << 20
shapes = arrays.array_shapes(min_dims=1, max_dims=4, max_side=6)
compressions = st.sampled_from(COMPRESSIONS)
STEPS = {"u8": 255, "u8c": 255, "u4": 15, "u4c": 15}
per_row = arrays.array_shapes(min_dims=2, max_dims=4, max_side=6)


def floats(shape: object, most: float = 1000) -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(np.float32, shape, elements=st.floats(-most, most, width=32))  # type: ignore[arg-type]


def ranges(codec: str, channels: int) -> dict[str, object]:
    """A calibrated range for rows with so many channels."""
    if codec not in AFFINE:
        return {}
    if codec not in PER_CHANNEL:
        return {"low": -2.0, "high": 3.0}
    return {"low": tuple(-1.0 - k for k in range(channels)), "high": tuple(2.0 + k for k in range(channels))}


def over_the_wire(coded: Coded) -> np.ndarray:
    header = tensor_header(coded).SerializeToString()
    message = pb.Tensor.FromString(header)
    message.data = bytes(coded.data)
    return tensor_from_wire(message, max_bytes=BIG)


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


def test_a_zstd_frame_that_wants_a_large_window() -> None:
    """A frame of unknown size may ask for up to 2 GiB of memory before its first byte is there."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = frame.compress(b"\0" * 24) + frame.flush()
    coded = encode(np.ones((2, 3), np.float32), CutTensor(name="t", compression="zstd"))
    with pytest.raises(Malformed, match="not valid zstd"):
        decode(replace(coded, data=data), max_bytes=BIG)


def test_bytes_behind_a_zstd_frame() -> None:
    coded = encode(np.ones((2, 3), np.float32), CutTensor(name="t", compression="zstd"))
    for more in (b"x", bytes(coded.data)):
        with pytest.raises(Malformed, match="'t' is not valid zstd data of 24 bytes"):
            decode(replace(coded, data=bytes(coded.data) + more), max_bytes=BIG)


def test_a_tensor_larger_than_that_window_passes() -> None:
    array = np.arange(3 << 20, dtype=np.float32)[None]
    for compression in COMPRESSIONS:
        coded = encode(array, CutTensor(name="t", compression=compression))
        assert np.array_equal(decode(coded, max_bytes=array.nbytes), array)


@pytest.mark.parametrize("bomb", [b"\0" * (64 << 20), b"\0" * 25, b"\0" * 23])
def test_lz4_that_inflates_to_another_size(bomb: bytes) -> None:
    coded = encode(np.ones((2, 3), np.float32), CutTensor(name="t", compression="lz4"))
    with pytest.raises(Malformed, match="'t'"):
        decode(replace(coded, data=lz4.block.compress(bomb, store_size=False)), max_bytes=BIG)
    with pytest.raises(Malformed, match="'t' is not valid lz4"):
        decode(replace(coded, data=b"\xff\xff"), max_bytes=BIG)
    with pytest.raises(Malformed, match="At most 16"):
        decode(replace(coded, data=lz4.block.compress(bomb, store_size=False)), max_bytes=16)


@given(
    st.binary(max_size=200),
    st.sampled_from(CODECS),
    compressions,
    st.sampled_from(sorted(DTYPES)),
    st.sampled_from([(2, 3), (6,), (1, 0), ()]),
    st.lists(st.floats(width=32), max_size=4),
)
def test_any_bytes_are_refused_or_decoded(
    data: bytes, codec: str, compression: str, dtype: str, shape: tuple[int, ...], numbers: list[float]
) -> None:
    coded = Coded(
        name="t",
        dtype=dtype,
        shape=shape,
        codec=codec,
        compression=compression,
        scale=np.array(numbers, np.float32),
        offset=np.array(numbers[::-1], np.float32),
        data=data,
    )
    try:
        back = decode(coded, max_bytes=BIG)
    except Malformed:
        return
    assert back.shape == shape and back.dtype == dtype


@given(
    st.binary(max_size=64), st.sampled_from(sorted(AFFINE)), st.floats(0, 10, width=32), st.floats(-10, 10, width=32)
)
def test_any_steps_decode_to_finite_numbers(data: bytes, codec: str, scale: float, offset: float) -> None:
    channels = len(data) if codec == "u8c" else 1
    shape = (len(data),) if codec in ("u8", "u4") else (1, channels) if codec == "u8c" else (2 * len(data), 1)
    if codec == "u4":
        shape = (2 * len(data),)
    coded = Coded(
        name="t", dtype="float32", shape=shape, codec=codec, data=data,
        scale=np.full(channels, scale, np.float32), offset=np.full(channels, offset, np.float32),
    )  # fmt: skip
    back = decode(coded, max_bytes=BIG)
    assert back.shape == shape and np.isfinite(back).all()


def test_every_codec_of_the_proto_is_here_and_no_other() -> None:
    assert {name.removeprefix("CODEC_").lower() for name in pb.Codec.keys()} == set(REGISTRY) == set(CODECS)
    assert {name.removeprefix("COMPRESSION_").lower() for name in pb.Compression.keys()} == set(COMPRESSIONS)


@given(st.data(), st.sampled_from(sorted(AFFINE)), per_row, compressions)
def test_affine_codecs_are_within_half_a_step(
    data: st.DataObject, codec: str, shape: tuple[int, ...], compression: str
) -> None:
    array = data.draw(floats(shape))
    coded = encode(array, CutTensor(name="t", codec=codec, compression=compression))
    assert len(coded.scale) == (shape[1] if codec in PER_CHANNEL else 1)
    back = decode(coded, max_bytes=BIG)
    scale = coded.scale.reshape(1, -1, *(1,) * (len(shape) - 2)) if codec in PER_CHANNEL else coded.scale
    assert (np.abs(back - array) <= 0.5001 * scale + 1e-3).all()


@pytest.mark.parametrize("codec", sorted(PER_CHANNEL))
def test_per_channel_keeps_a_quiet_channel_beside_a_loud_one(codec: str) -> None:
    array = np.random.default_rng(0).uniform(0, 1, (3, 2, 5)).astype(np.float32) * np.float32([[[0.01], [100.0]]])
    quiet = np.abs(round_trip(array, CutTensor(name="t", codec=codec)) - array)[:, 0].max()
    together = np.abs(round_trip(array, CutTensor(name="t", codec=codec[:-1])) - array)[:, 0].max()
    assert quiet < 0.5001 * 0.01 / STEPS[codec] < together


@given(st.data(), st.sampled_from(CODECS), per_row)
def test_with_calibrated_ranges_no_row_depends_on_its_neighbours(
    data: st.DataObject, codec: str, shape: tuple[int, ...]
) -> None:
    array = data.draw(floats(shape, 10))
    how = CutTensor(name="t", codec=codec, **ranges(codec, shape[1]))  # type: ignore[arg-type]
    together = round_trip(array, how)
    for row in range(len(array)):
        assert np.array_equal(round_trip(array[row : row + 1], how)[0], together[row])


@given(st.data(), st.sampled_from(CODECS), per_row, compressions, st.booleans())
def test_upstream_sees_the_bits_that_calibration_saw(
    data: st.DataObject, codec: str, shape: tuple[int, ...], compression: str, calibrated: bool
) -> None:
    array = data.draw(floats(shape))
    how = CutTensor(name="t", codec=codec, compression=compression, **(ranges(codec, shape[1]) if calibrated else {}))  # type: ignore[arg-type]
    assert over_the_wire(encode(array, how)).tobytes() == round_trip(array, how).tobytes()


@given(arrays.arrays(np.float32, shapes, elements=st.floats(allow_nan=False, width=32)), compressions)
def test_float16_is_half_precision_and_saturates(array: np.ndarray, compression: str) -> None:
    back = decode(encode(array, CutTensor(name="t", codec="float16", compression=compression)), max_bytes=BIG)
    assert np.array_equal(back, np.clip(array, -65504, 65504).astype(np.float16).astype(np.float32))


def test_every_float16_and_every_tie_between_two() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    kept = every[np.isfinite(every)]
    how = CutTensor(name="t", codec="float16")
    assert bytes(encode(kept.astype(np.float32), how).data) == kept.tobytes()
    restored = decode(
        Coded(name="t", dtype="float32", shape=(1 << 16,), codec="float16", data=every.tobytes()), max_bytes=BIG
    )
    assert np.array_equal(restored, every.astype(np.float32), equal_nan=True)
    positive = np.sort(kept[kept >= 0]).astype(np.float64)
    ties = ((positive[:-1] + positive[1:]) / 2).astype(np.float32)
    for near in (ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(1e9)), -ties):
        assert bytes(encode(near, how).data) == near.astype(np.float16).tobytes()


@given(arrays.arrays(np.float32, shapes, elements=st.floats(allow_nan=False, width=32)), compressions)
def test_bfloat16_is_the_nearest_and_saturates(array: np.ndarray, compression: str) -> None:
    import ml_dtypes

    coded = encode(array, CutTensor(name="t", codec="bfloat16", compression=compression))
    most = float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
    wanted = np.clip(array, -most, most).astype(ml_dtypes.bfloat16)
    assert np.array_equal(decode(coded, max_bytes=BIG), wanted.astype(np.float32))
    if compression == "none":
        assert bytes(coded.data) == wanted.tobytes(), "its bits, little-endian"


@pytest.mark.parametrize("codec", ["raw", "float16", "bfloat16"])
def test_nan_stays_nan_where_the_codec_has_one(codec: str) -> None:
    """So that upstream can refuse it."""
    assert np.isnan(round_trip(np.float32([[np.nan, 1.0]]), CutTensor(name="t", codec=codec))[0, 0])


@pytest.mark.parametrize("codec", sorted(AFFINE))
def test_what_lies_outside_the_range_saturates(codec: str) -> None:
    array = np.float32([[np.nan, -np.inf, np.inf, -1e38, 1e38, 3.0]])
    low, high = (-2.0, 3.0) if codec not in PER_CHANNEL else ((-2.0,) * 6, (3.0,) * 6)
    back = round_trip(array, CutTensor(name="t", codec=codec, low=low, high=high))
    assert np.allclose(back, [[-2, -2, 3, -2, 3, 3]], atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("codec", CODECS)
def test_other_float_types_come_back_as_they_left(codec: str, dtype: str) -> None:
    array = np.linspace(-1, 1, 24).reshape(2, 3, 4).astype(dtype)
    back = round_trip(array, CutTensor(name="t", codec=codec))
    assert back.dtype == dtype and np.allclose(back, array, atol=0.08)


def test_four_bits_lie_two_to_a_byte_the_first_in_the_lower_half() -> None:
    array = np.float32([[0, 1, 2], [13, 14, 15]])
    coded = encode(array, CutTensor(name="t", codec="u4", low=0.0, high=15.0))
    assert bytes(coded.data) == bytes([0x10, 0xD2, 0xFE])
    odd = encode(array[:1], CutTensor(name="t", codec="u4", low=0.0, high=15.0))
    assert bytes(odd.data) == bytes([0x10, 0x02])
    assert np.array_equal(decode(odd, max_bytes=BIG), array[:1])


@pytest.mark.parametrize(
    ("codec", "shape", "scales", "sentence"),
    [
        ("u8c", (2, 3), 1, "1 scales and 1 offsets. u8c needs 3 scales"),
        ("u8", (2, 3), 3, "u8 needs one scale and one offset"),
        ("u4c", (6,), 6, "no channels"),
    ],
)
def test_ranges_that_do_not_fit(codec: str, shape: tuple[int, ...], scales: int, sentence: str) -> None:
    numbers = np.ones(scales, np.float32)
    data = bytes(3 if "4" in codec else 6)
    coded = Coded(name="t", dtype="float32", shape=shape, codec=codec, scale=numbers, offset=numbers, data=data)
    with pytest.raises(Malformed, match=sentence):
        decode(coded, max_bytes=BIG)


@pytest.mark.parametrize(("scale", "offset"), [(np.inf, 0), (0, np.nan), (3e38, 0), (1e36, -3.4e38)])
def test_ranges_beyond_float32(scale: float, offset: float) -> None:
    coded = encode(np.ones((1, 2), np.float32), CutTensor(name="t", codec="u8"))
    with pytest.raises(Malformed, match="not finite, or too large"):
        decode(replace(coded, scale=np.float32([scale]), offset=np.float32([offset])), max_bytes=BIG)


@given(st.data(), st.sampled_from(CODECS), per_row, compressions)
def test_no_message_is_larger_than_announced(
    data: st.DataObject, codec: str, shape: tuple[int, ...], compression: str
) -> None:
    how = CutTensor(name="t", codec=codec, compression=compression)
    array = data.draw(floats(shape))
    assert travels(encode(array, how)) <= stored_at_most(how, array.size, 4, shape[1])
