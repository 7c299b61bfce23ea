"""A row's answer is its own: networks that mix the rows of a batch are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from training.add_exits import add_exits

CLASSES = ("a", "b", "c", "d")


class Attends(nn.Module):
    """Over the rows of the batch, unless it is said to come first."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.into = nn.Linear(6, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.encoder(torch.relu(self.into(x))).mean(1))
        return logits


class Between(nn.Module):
    """Something between two layers."""

    def __init__(self, what: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.c(torch.relu(self.b(self.what(torch.relu(self.a(x))))))
        return logits


class First(nn.Module):
    """Something before the first layer."""

    def __init__(self, what: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.b(torch.relu(self.a(self.what(x))))
        return logits


class Looks(nn.Module):
    """Takes floats for positions in a table."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.a, self.b = nn.Embedding(7, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.b(torch.relu(self.a(self.embed(x.long()).mean(1))))
        return logits


class Squeezes(nn.Module):
    """Takes the axis of a single row away with its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.c(torch.relu(self.b(torch.relu(self.a(x.unsqueeze(1))).squeeze())))
        return logits


EXAMPLES = [torch.linspace(-1, 1, 12).reshape(2, 6), torch.zeros(1, 6), torch.ones(3, 6)]


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("make", [Between, First])
@pytest.mark.parametrize(
    "what",
    [
        lambda h: h - h.mean(0),
        lambda h: h / (h.max() + 1.0),
        lambda h: torch.softmax(h, 0),
        lambda h: h + h.flip(0),
        lambda h: h.cumsum(0),
    ],
)
def test_what_mixes_rows_is_refused(what: Any, make: Any, example: Tensor) -> None:
    if make is First and not example.any():
        example = example + 0.5  # nothing scales a row of zeros
    torch.manual_seed(0)
    with pytest.raises(ConfigError) as caught:
        add_exits(make(what), example, at=["a"], classes=CLASSES)
    assert "answers a row differently when other rows are in its batch" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_attention_over_the_rows_is_refused_and_over_the_tokens_is_not() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 10, 6)
    with pytest.raises(ConfigError, match=r"Exit \d answers a row differently .* \(batch_first=False\)"):
        add_exits(Attends(batch_first=False), x, at=1, classes=CLASSES)
    add_exits(Attends(batch_first=True), x, at=1, classes=CLASSES)


@pytest.mark.parametrize("example", [*EXAMPLES, 1e4 * EXAMPLES[0]])
@pytest.mark.parametrize(
    "what",
    [
        lambda h: h - h.mean(1, keepdim=True),
        lambda h: torch.log(h),
        lambda h: h / (1e-6 + h.norm(dim=1, keepdim=True)),
    ],
)
def test_what_looks_at_one_row_is_taken(what: Any, example: Tensor) -> None:
    """Also where the logarithm of some made up rows is no number, or of the example's own."""
    torch.manual_seed(0)
    add_exits(First(lambda x: what(x.abs() + 1.0)), example, at=["a"], classes=CLASSES)
    add_exits(Between(lambda h: what(h + 1.0)), example, at=["a"], classes=CLASSES)


class Normalised(nn.Module):
    """An instance norm whose variance is next to nothing where the rows of the example are constant."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv1d(1, 8, 3, padding=1), nn.InstanceNorm1d(8), nn.Conv1d(8, 8, 3, padding=1)
        self.again, self.c = nn.InstanceNorm1d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.again(self.b(torch.relu(self.norm(self.a(x))))))
        logits: Tensor = self.c(hidden.mean(2))
        return logits


class Masked(nn.Module):
    """A float mask that holds zeros and ones: any other number is harmful."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.attend, self.b = nn.Linear(6, 8), nn.Linear(8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        hidden = torch.relu(self.a(x))
        scores = self.attend(hidden).squeeze(2) + (1 - mask) * -1e4
        logits: Tensor = self.b((torch.softmax(scores, 1).unsqueeze(2) * hidden).sum(1))
        return logits


def test_rounding_and_harmful_numbers_are_no_mixing() -> None:
    torch.manual_seed(0)
    for example in (torch.zeros(2, 1, 16), torch.ones(1, 1, 16), torch.randn(3, 1, 16)):
        add_exits(Normalised(), example, at=1, classes=CLASSES)
    add_exits(
        Masked(), (torch.randn(2, 5, 6), torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])), at=1, classes=CLASSES
    )


def test_values_that_a_network_does_not_take_are_not_forced_on_it() -> None:
    add_exits(Looks(), torch.tensor([[0.0, 6.0, 3.0], [1.0, 2.0, 3.0]]), at=["a"], classes=CLASSES)


@pytest.mark.parametrize("at", ["a", "b"])
def test_a_network_that_loses_the_axis_of_one_row_is_told_so(at: str) -> None:
    with pytest.raises(ConfigError, match=r"For 1 row the network returns \[4\].* squeeze\(\) without an axis"):
        add_exits(Squeezes(), torch.randn(2, 6), at=[at], classes=CLASSES)
