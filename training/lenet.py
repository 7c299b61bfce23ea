"""B-LeNet for 28 x 28 digits with three exits, one for each of device, edge and cloud.

LeNet with branches follows Teerapittayanon et al., "BranchyNet" (2016). Each cut is narrow: a bottleneck of
few channels crosses it (Matsubara et al., "BottleFit", 2022), trained with small noise so that it can be coded
coarsely. The exit head of the first stage reads the wide tensor in front of the bottleneck, which costs
nothing on the wire.

Tensor names carry their axes: B rows of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.manifest import ImageSpec, TensorSpec
from training.network import MultiExitNetwork, StagePart
from training.widths import times


class FromPixels(nn.Module):
    """Turn pixels 0..255 of any dtype into float32 0..1."""

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Scale."""
        return pixels_BCHW.to(torch.float32) * (1.0 / 255.0)


class Bottleneck(nn.Module):
    """A 1 x 1 convolution to few channels, batch norm and ReLU; uniform noise stands for the codec while training.

    Noise in place of rounding keeps gradients (Balle et al., "End-to-end Optimized Image Compression", 2017).

    Args:
        channels_in, channels_out: of the convolution.
        noise: width of the uniform noise, the coarsest step that the network shall bear.
    """

    def __init__(self, channels_in: int, channels_out: int, *, noise: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        self.noise = noise

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Project to few channels, all values at least 0."""
        narrow_BCHW = F.relu(self.norm(self.conv(x_BCHW)))
        if self.training and self.noise > 0:
            narrow_BCHW = F.relu(narrow_BCHW + (torch.rand_like(narrow_BCHW) - 0.5) * self.noise)
        return narrow_BCHW


class Fork(nn.Module):
    """A trunk whose output is handed on twice: as it is, for the exit head, and through a bottleneck."""

    def __init__(self, trunk: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = neck

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the wide and the narrow tensor."""
        wide_BCHW = self.trunk(x_BCHW)
        return wide_BCHW, self.neck(wide_BCHW)


def conv(channels_in: int, channels_out: int, size: int, *, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, size, stride, padding, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def b_lenet(
    *,
    stem: int = 16,
    head: int = 64,
    widths: Sequence[int] = (64, 96),
    necks: Sequence[int] = (6, 8),
    width: float = 1.0,
    noise: float = 0.25,
) -> MultiExitNetwork:
    """Build B-LeNet for MNIST.

    Args:
        stem: channels of the first convolution.
        head: channels of the second, which the first exit reads.
        widths: channels of the second and third stage.
        necks: channels that cross the first and the second cut, as [B, necks[k], 6, 6].
        width: times all channels that cross no cut.
        noise: see `Bottleneck`.

    Returns:
        A network that takes `image`, uint8 [B, 1, 28, 28], and answers with logits [B, 10] at three exits.
    """
    stem, head, *widths = times(width, stem, head, *widths)
    trunk0 = nn.Sequential(FromPixels(), conv(1, stem, 5, stride=2), conv(stem, head, 3, stride=2, padding=1))
    trunk1 = nn.Sequential(conv(necks[0], widths[0], 3, padding=1), conv(widths[0], widths[0], 3, padding=1))
    trunk2 = nn.Sequential(conv(necks[1], widths[0], 3, padding=1), conv(widths[0], widths[1], 5, padding=2))
    stages = [
        StagePart(
            body=Fork(trunk0, Bottleneck(head, necks[0], noise=noise)),
            reads=("image",),
            writes=("wide0", "cut0"),
            head=nn.Sequential(nn.Flatten(), nn.Linear(head * 36, 10)),
            head_reads=("wide0",),
        ),
        StagePart(
            body=Fork(trunk1, Bottleneck(widths[0], necks[1], noise=noise)),
            reads=("cut0",),
            writes=("wide1", "cut1"),
            head=nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(widths[0] * 9, 10)),
            head_reads=("wide1",),
        ),
        StagePart(
            body=trunk2,
            reads=("cut1",),
            writes=("wide2",),
            head=nn.Sequential(
                nn.Flatten(), nn.Linear(widths[1] * 36, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 10)
            ),
            head_reads=("wide2",),
        ),
    ]
    return MultiExitNetwork(
        stages,
        inputs=(TensorSpec(name="image", dtype="uint8", shape=(1, 28, 28)),),
        classes=tuple("0123456789"),
        image=ImageSpec(tensor="image", mode="L", size=(28, 28), fit="contain", layout="CHW"),
    )
