"""What training minimises: a weighted sum over exits, and small additions.

Joint training sums the exits' losses (Scardapane et al., "Why should we add early exits to neural networks?",
2020, equation 6). Learning from the last exit is distillation within one network (Phuong and Lampert,
"Distillation-based Training for Multi-Exit Architectures", 2019).

Tensor names carry their axes: B rows of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.exit_weights import Weights
from training.phase import Answers


@dataclass(frozen=True, kw_only=True)
class ExitSum:
    """The weighted sum of some exits' cross-entropies."""

    exits: tuple[int, ...]  # numbers of the exits
    weights: Weights  # one for each of them
    smoothing: float = 0.0  # share of the target that is spread over all classes
    rate_penalty: float = 0.0  # weight of the bits that coding what crosses the cuts would take
    distillation: float = 0.0  # weight of learning from the last exit's probabilities
    temperature: float = 1.0  # that softens them

    def __call__(self, answers: Answers, labels_B: Tensor, progress: float) -> Tensor:
        """The loss of a batch of training."""
        weights = self.weights.at(progress)
        loss = torch.zeros(())
        for weight, number in zip(weights, self.exits, strict=True):
            if weight > 0:
                loss = loss + weight * cross_entropy(answers.logits[number], labels_B, self.smoothing)
        if self.distillation > 0:
            loss = loss + self.distillation * from_last([answers.logits[n] for n in self.exits], self.temperature)
        if self.rate_penalty > 0:
            for tensor in answers.crossing:
                loss = loss + self.rate_penalty * rate(tensor)
        return loss

    def judge(self, answers: Answers, labels_B: Tensor) -> Tensor:
        """The sum of the cross-entropies with the weights at the end of training."""
        parts = [
            weight * cross_entropy(answers.logits[number], labels_B)
            for weight, number in zip(self.weights.at(1.0), self.exits, strict=True)
        ]
        return torch.stack(parts).sum()


def one_exit(number: int, *, smoothing: float = 0.0, rate_penalty: float = 0.0) -> ExitSum:
    """The cross-entropy of a single exit."""
    weights = Weights(first=(1.0,), last=(1.0,))
    return ExitSum(exits=(number,), weights=weights, smoothing=smoothing, rate_penalty=rate_penalty)


def cross_entropy(logits_BC: Tensor, labels_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in float32, whatever the logits are computed in."""
    return F.cross_entropy(logits_BC.float(), labels_B, label_smoothing=smoothing)


def rate(tensor: Tensor, step: float = 0.5) -> Tensor:
    """About how many bits an element takes when it is coded in steps of `step`: mean log2(1 + |x| / step)."""
    return torch.log2(1.0 + tensor.float().abs() / step).mean()


def from_last(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the earlier exits from the last, which learns nothing from it."""
    *early, last_BC = logits
    teacher_BC = F.softmax(last_BC.detach().float() / temperature, dim=1)
    parts = [
        F.kl_div(F.log_softmax(logits_BC.float() / temperature, dim=1), teacher_BC, reduction="batchmean")
        for logits_BC in early
    ]
    return torch.stack(parts).sum() * temperature**2 if parts else torch.zeros(())
