"""What joint training minimises: a weighted sum over the exits, and small additions.

Joint training sums the exits' losses (Scardapane et al., "Why should we add early exits to neural networks?",
2020, equation 6). Learning from the last exit is distillation within one network (Phuong and Lampert,
"Distillation-based Training for Multi-Exit Architectures", 2019).

Tensor names carry their axes: B rows of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from training.recipe import TrainingSettings


def exit_losses(logits: Sequence[Tensor], labels_B: Tensor) -> Tensor:
    """Mean cross-entropy of every exit, [exits], from logits [B, C] each."""
    return torch.stack([F.cross_entropy(logits_BC.float(), labels_B) for logits_BC in logits])


def joint_loss(
    logits: Sequence[Tensor], labels_B: Tensor, crossing: Sequence[Tensor], settings: TrainingSettings
) -> Tensor:
    """The training loss of a batch.

    Args:
        logits: of every exit, [B, C] each.
        labels_B: true classes.
        crossing: float tensors that cross a cut; the bits that coding them would take are penalised.
        settings: weights of the parts.
    """
    weights = torch.tensor(settings.exit_weights)
    loss = (weights * exit_losses(logits, labels_B)).sum()
    if settings.distillation > 0:
        loss = loss + settings.distillation * _from_last(logits, settings.distillation_temperature)
    if settings.rate_penalty > 0:
        for tensor in crossing:
            loss = loss + settings.rate_penalty * rate(tensor)
    return loss


def rate(tensor: Tensor, step: float = 0.5) -> Tensor:
    """About how many bits an element takes when it is coded in steps of `step`: mean log2(1 + |x| / step)."""
    return torch.log2(1.0 + tensor.float().abs() / step).mean()


def _from_last(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the earlier exits from the last, which learns nothing from it."""
    teacher_BC = F.softmax(logits[-1].detach().float() / temperature, dim=1)
    parts = [
        F.kl_div(F.log_softmax(logits_BC.float() / temperature, dim=1), teacher_BC, reduction="batchmean")
        for logits_BC in logits[:-1]
    ]
    return torch.stack(parts).sum() * temperature**2 if parts else torch.zeros(())
