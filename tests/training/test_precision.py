import pytest
import torch
from torch import nn

from training import precision
from training.precision import chosen, has_convolutions, native_bfloat16


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_only_where_it_pays(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(precision, "native_bfloat16", lambda: native)
    images, series, vectors = nn.Conv2d(1, 2, 3), nn.Conv1d(1, 2, 3), nn.Linear(3, 2)
    assert [has_convolutions(one) for one in (images, series, vectors)] == [True, True, False]
    assert [chosen("auto", one) for one in (images, series)] == ["bfloat16" if native else "float32"] * 2
    assert chosen("auto", vectors) == "float32"
    assert chosen("bfloat16", vectors) == "bfloat16" and chosen("float32", images) == "float32"


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [({"avx512_bf16": True}, True), ({"avx512_bf16": False, "amx_bf16": True}, True), ({"avx512_f": True}, False)],
)
def test_what_the_processor_has(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], native: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert native_bfloat16() is native
