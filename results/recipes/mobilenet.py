"""MobileNetV2 (Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018) as somebody may have it.

Tensor names carry their axes: B rows of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class InvertedResidual(nn.Module):
    """The network's block: few channels in and out, many between.

    Args:
        before, after: channels in and out.
        stride: of the convolution over places.
        expand: how many times `before` lie between; 1 leaves the first convolution out.
    """

    def __init__(self, before: int, after: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = before * expand
        self.residual = stride == 1 and before == after
        layers: list[nn.Module] = []
        if expand != 1:
            layers += [nn.Conv2d(before, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True)]
        layers += [nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide)]
        layers += [nn.ReLU6(inplace=True), nn.Conv2d(wide, after, 1, bias=False), nn.BatchNorm2d(after)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return [B, after, H / stride, W / stride]."""
        y_BCHW: Tensor = self.conv(x_BCHW)
        return x_BCHW + y_BCHW if self.residual else y_BCHW


class MobileNetV2(nn.Module):
    """The layout of the published network.

    Args:
        width: times its channels, in steps of 8; 1.0 and 1,000 classes give the published shapes.
        classes: K.
        repeats: blocks of a kind at most; 4 keeps all.
    """

    LAYOUT = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self, width: float = 1.0, classes: int = 1000, repeats: int = 4) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(8, int(channels * width + 4) // 8 * 8)

        before = scaled(32)
        first = nn.Sequential(nn.Conv2d(3, before, 3, 2, 1, bias=False), nn.BatchNorm2d(before), nn.ReLU6(inplace=True))
        blocks: list[nn.Module] = [first]
        for expand, channels, count, stride in self.LAYOUT:
            after = scaled(channels)
            for number in range(min(count, repeats)):
                blocks.append(InvertedResidual(before, after, stride if number == 0 else 1, expand))
                before = after
        last = 1280 if width >= 1 else scaled(1280)
        blocks.append(
            nn.Sequential(nn.Conv2d(before, last, 1, bias=False), nn.BatchNorm2d(last), nn.ReLU6(inplace=True))
        )
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def pooled(self, image_BCHW: Tensor) -> Tensor:
        """What the classifier reads, [B, 1280]."""
        x_BCHW: Tensor = self.features(image_BCHW)
        return F.adaptive_avg_pool2d(x_BCHW, (1, 1)).reshape(x_BCHW.shape[0], -1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, K] of standardised images, float32 [B, 3, H, W]."""
        logits_BK: Tensor = self.classifier(self.pooled(image))
        return logits_BK


class Enlarging(MobileNetV2):
    """The network for images that are smaller than those that it was trained on: it enlarges them itself.

    Args:
        side: in pixels, that images are enlarged to.
        classes: K.
    """

    def __init__(self, *, side: int, classes: int) -> None:
        super().__init__(classes=classes)
        self.side = side

    def pooled(self, image_BCHW: Tensor) -> Tensor:
        """As the network, of the enlarged image."""
        large_BCHW = F.interpolate(image_BCHW, (self.side, self.side), mode="bilinear", align_corners=False)
        return super().pooled(large_BCHW)


def enlarging(*, side: int, classes: int) -> Enlarging:
    """Build it; its weights are given."""
    return Enlarging(side=side, classes=classes)
