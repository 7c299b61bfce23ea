import numpy as np
import pytest

from common.serving.joining import joined

WHOLE = np.arange(64 * 4096, dtype=np.float32).reshape(64, 4096)
OTHER = WHOLE + 1
FLAT = np.arange(64 * 4096, dtype=np.float32)


@pytest.mark.parametrize(
    ("parts", "copied"),
    [
        ([WHOLE[:8], WHOLE[8:9], WHOLE[9:64]], False),
        ([WHOLE[3:8], WHOLE[8:20]], False),
        ([WHOLE[8:16], WHOLE[:8]], True),
        ([WHOLE[:8], WHOLE[9:16]], True),
        ([WHOLE[:8], OTHER[8:16]], True),
        ([WHOLE[:16:2], WHOLE[16:32]], True),
        ([WHOLE[:8, :1024], WHOLE[8:16, :1024]], True),
        ([WHOLE[:8], WHOLE[8:16].copy()], True),
        ([WHOLE.copy(), OTHER], True),
        ([FLAT[: 8 * 4096].reshape(8, 4096), FLAT[8 * 4096 : 16 * 4096].reshape(8, 4096)], False),
        ([WHOLE[:0], WHOLE[:8], WHOLE[8:16]], True),
        ([WHOLE[:1, :4], WHOLE[1:2, :4]], True),
    ],
)
def test_only_what_does_not_lie_side_by_side_is_copied(parts: list[np.ndarray], copied: bool) -> None:
    together = joined(parts)
    assert np.array_equal(together, np.concatenate(parts))
    assert together.flags.c_contiguous and np.shares_memory(together, parts[-1]) == (not copied)


def test_nothing_joined_with_nothing() -> None:
    empty = np.empty((0, 3), np.float32)
    assert joined([empty[:0], empty[:0]]).shape == (0, 3)
