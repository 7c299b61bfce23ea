import pytest
import torch
from torch import Tensor

from training.exit_weights import Weights
from training.losses import ExitSum, from_last, rate
from training.phase import Answers

LABELS = torch.tensor([0, 1])
GOOD, BAD = torch.eye(2) * 9, -torch.eye(2) * 9


def _answers(*logits: Tensor, crossing: tuple[Tensor, ...] = ()) -> Answers:
    return Answers(logits=dict(enumerate(logits)), crossing=crossing)


def _sum(*weights: float, last: tuple[float, ...] | None = None, **settings: float) -> ExitSum:
    return ExitSum(exits=tuple(range(len(weights))), weights=Weights(first=weights, last=last or weights), **settings)


def test_weights_of_exits_weigh() -> None:
    answers = _answers(BAD, GOOD)
    first, last = (_sum(*weights)(answers, LABELS, 0.0) for weights in ((1.0, 0.0), (0.0, 1.0)))
    assert first > 5 > 0.1 > last
    assert _sum(0.5, 0.0)(answers, LABELS, 0.0) == pytest.approx(float(first) / 2)


def test_weights_may_change_and_epochs_are_judged_by_the_last() -> None:
    answers, ramp = _answers(BAD, GOOD), _sum(0.0, 1.0, last=(0.5, 1.0))
    at = [float(ramp(answers, LABELS, progress)) for progress in (0.0, 0.5, 1.0)]
    assert at[1] == pytest.approx((at[0] + at[2]) / 2)
    assert float(ramp.judge(answers, LABELS)) == pytest.approx(at[2])


def test_the_teacher_learns_nothing_from_its_pupils() -> None:
    logits = [torch.randn(4, 3, requires_grad=True) for _ in range(2)]
    _sum(0.0, 0.0, distillation=1.0)(_answers(*logits), torch.zeros(4, dtype=torch.int64), 0.0).backward()
    assert logits[0].grad is not None and logits[0].grad.abs().sum() > 0
    assert logits[1].grad is None or logits[1].grad.abs().sum() == 0
    assert from_last([GOOD, GOOD], 2.0) == pytest.approx(0.0, abs=1e-6)
    assert from_last([BAD, GOOD], 2.0) > 1


def test_smoothing_moves_the_target() -> None:
    sure, smooth = (_sum(1.0, smoothing=s)(_answers(GOOD), LABELS, 0.0) for s in (0.0, 0.2))
    assert float(smooth) == pytest.approx(float(sure) + 0.1 * 9, rel=1e-3)
    assert float(_sum(1.0, smoothing=0.2).judge(_answers(GOOD), LABELS)) == pytest.approx(float(sure))


def test_rate_grows_with_magnitude() -> None:
    assert rate(torch.zeros(5)) == 0.0
    assert rate(torch.full((5,), 0.5)) == pytest.approx(1.0)
    assert rate(torch.full((5,), -1.5)) == pytest.approx(2.0)
    crossing = (torch.full((5,), 0.5), torch.full((2,), 0.5))
    charged = _sum(1.0, rate_penalty=0.5)(_answers(GOOD, crossing=crossing), LABELS, 0.0)
    assert float(charged) == pytest.approx(1.0, abs=1e-3)
