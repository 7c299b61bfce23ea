"""Differentiable exits: gates that are learnt with the network, at a price for computing.

At every early exit a gate h_i = sigmoid(g_i(x)) weighs its answer against those behind it:

    y~_i = h_i y_i + (1 - h_i) y~_(i+1),   y~_L = y_L

The loss is the cross-entropy of y~_1, plus `cost` times the expected share of the FLOPs when each row leaves at exit i
with probability h_i (1 - h_1) ... (1 - h_(i-1)) (Scardapane, Comminiello et al., "Differentiable branching in deep
networks for fast inference", ICASSP 2020; Pomponi et al., "A probabilistic re-interpretation of confidence scores in
multi-exit models", 2022). An exit whose gate is shut would learn nothing from that, so `exit_weights` adds the exits'
own losses; all but the last at 0 leave the bare rule.

Tensor names carry their axes: B rows of a batch, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from common.errors import ConfigError
from training.cost import costs
from training.exit_weights import ExitWeights, weights_for
from training.gates import add_gates
from training.losses import ExitSum
from training.network import MultiExitNetwork
from training.phase import Answers, Phase
from training.settings import TrainingSettings


class GatedTraining(TrainingSettings):
    """Backbone, exits and gates learn at once."""

    recipe: Literal["gated"] = "gated"
    cost: float = Field(default=0.1, ge=0.0)  # price of computing the whole network, in nats of cross-entropy
    exit_weights: ExitWeights = "equal"  # of each exit's own loss, first exit first
    rate_penalty: float = Field(default=0.0, ge=0.0)  # weight of the bits that crossing activations take

    def prepare(self, network: MultiExitNetwork) -> None:
        """Add the gates."""
        add_gates(network)

    def phases(self, network: MultiExitNetwork) -> tuple[Phase, ...]:
        """One phase, for everything."""
        if len(network.exits) < 2:
            raise ConfigError("training.recipe is gated. The network has no early exit to put a gate on.")
        leaving = costs(network).leaving()
        loss = GatedLoss(
            own=ExitSum(
                exits=tuple(range(len(network.exits))),
                weights=weights_for(self.exit_weights, network),
                smoothing=self.label_smoothing,
                rate_penalty=self.rate_penalty,
            ),
            shares=tuple(flops / leaving[-1] for flops in leaving),
            cost=self.cost,
        )
        return (Phase(name="gated", epochs=self.epochs, loss=loss, trains=(network,)),)


@dataclass(frozen=True, kw_only=True)
class GatedLoss:
    """The soft combination of all exits, and what it costs."""

    own: ExitSum  # of the exits by themselves
    shares: tuple[float, ...]  # of the FLOPs, spent by a row that leaves at each exit
    cost: float

    @property
    def exits(self) -> tuple[int, ...]:
        """All of them."""
        return self.own.exits

    def __call__(self, answers: Answers, labels_B: Tensor, progress: float) -> Tensor:
        """The loss of a batch of training."""
        return self._soft(answers, labels_B, self.own.smoothing) + self.own(answers, labels_B, progress)

    def judge(self, answers: Answers, labels_B: Tensor) -> Tensor:
        """The soft combination's cross-entropy and cost alone."""
        return self._soft(answers, labels_B, 0.0)

    def _soft(self, answers: Answers, labels_B: Tensor, smoothing: float) -> Tensor:
        mixed_BC, share_B = soft_exit(answers, self.shares)
        loss = F.nll_loss(mixed_BC, labels_B) * (1.0 - smoothing) - smoothing * mixed_BC.mean()
        return loss + self.cost * share_B.mean()


def soft_exit(answers: Answers, shares: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Logarithms of the combined class probabilities y~_1 [B, C], and the expected share of the FLOPs [B]."""
    last = len(shares) - 1
    mixed_BC = F.log_softmax(answers.logits[last].float(), dim=1)
    share_B = torch.full((len(mixed_BC),), shares[last])
    for number in reversed(range(last)):
        gate_B = answers.gates[number].float()
        stop_B1, go_B1 = F.logsigmoid(gate_B)[:, None], F.logsigmoid(-gate_B)[:, None]
        own_BC = F.log_softmax(answers.logits[number].float(), dim=1)
        mixed_BC = torch.logaddexp(stop_B1 + own_BC, go_B1 + mixed_BC)
        share_B = torch.lerp(share_B, torch.full_like(share_B, shares[number]), gate_B.sigmoid())
    return mixed_BC, share_B
