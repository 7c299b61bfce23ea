"""ResNets without exits (He et al., 2016), as networks of one stage whose only exit is the last.

Tensor names carry their axes: B rows of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from calibration.data.known import DATASETS
from common.manifest import ImageSpec, TensorSpec
from training.network import MultiExitNetwork, StagePart
from training.resnet import ResNet


class Features(nn.Module):
    """What a ResNet computes of bytes in front of its classifier, scaled and standardised first."""

    factor: Tensor
    offset: Tensor

    def __init__(self, model: ResNet, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.stem, self.groups = model.stem, model.groups
        self.register_buffer("factor", (1.0 / (255.0 * torch.tensor(std)))[:, None, None])
        self.register_buffer("offset", (-torch.tensor(mean) / torch.tensor(std))[:, None, None])

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Features [B, C]."""
        x_BCHW = image_BCHW.to(torch.float32) * self.factor + self.offset
        features_BC: Tensor = self.groups(self.stem(x_BCHW)).mean((2, 3))
        return features_BC


def cifar_resnet(*, blocks: int = 3, mean: Sequence[float], std: Sequence[float]) -> MultiExitNetwork:
    """Build ResNet-20, or another depth, for CIFAR-10."""
    model = ResNet(blocks=blocks)
    stage = StagePart(
        body=Features(model, mean, std), reads=("image",), writes=("last",), head=model.classify, head_reads=("last",)
    )
    return MultiExitNetwork(
        [stage],
        inputs=(TensorSpec(name="image", dtype="uint8", shape=(3, 32, 32)),),
        classes=DATASETS["cifar-10"].classes,
        image=ImageSpec(tensor="image", mode="RGB", size=(32, 32)),
    )
