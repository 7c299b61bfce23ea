"""ResNet for 32 x 32 images (He et al., "Deep Residual Learning", 2016, section 4.2).

Three groups of residual blocks with 16, 32 and 64 channels at full, half and a quarter of the size; where the
size changes, the shortcut is a 1 x 1 convolution.

Tensor names carry their axes: B rows of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from training.widths import times


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, added to the shortcut.

    Args:
        before, after: channels.
        stride: of the first convolution.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return [B, after, H / stride, W / stride]."""
        y_BCHW = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x_BCHW)))))
        return F.relu(y_BCHW + self.shortcut(x_BCHW))


class ResNet(nn.Module):
    """ResNet-`6 * blocks + 2`; 3 blocks per group give ResNet-20.

    Args:
        blocks: per group.
        widths: channels of the groups.
        width: times all of these.
        classes: K.
        channels: of the image.
    """

    def __init__(
        self,
        *,
        blocks: int = 3,
        widths: Sequence[int] = (16, 32, 64),
        width: float = 1.0,
        classes: int = 10,
        channels: int = 3,
    ) -> None:
        super().__init__()
        widths = times(width, *widths)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        groups: list[nn.Module] = []
        before = widths[0]
        for number, wide in enumerate(widths):
            layers = []
            for block in range(blocks):
                layers.append(ResidualBlock(before, wide, 2 if number > 0 and block == 0 else 1))
                before = wide
            groups.append(nn.Sequential(*layers))
        self.groups = nn.Sequential(*groups)
        self.classify = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, K] of normalised images, float32 [B, channels, H, W]."""
        x_BCHW = self.groups(self.stem(image))
        logits_BK: Tensor = self.classify(x_BCHW.mean((2, 3)))
        return logits_BK
