"""A small residual network for 28 x 28 grey images with three exits and narrow cuts.

Residual blocks as in ResNet-20 (He et al., "Deep Residual Learning", 2016, section 4.2), in three stages for device,
edge and cloud. Only a bottleneck of few channels crosses each cut (see `training.lenet.Bottleneck`), so that a row
takes fewer bytes than its PNG file; exit heads read the wide tensor in front of it, which never travels.

Tensor names carry their axes: B rows of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from common.manifest import ImageSpec, TensorSpec
from training.heads import MixedPool
from training.lenet import Bottleneck, Fork, FromPixels, conv
from training.network import MultiExitNetwork, StagePart
from training.resnet import ResidualBlock
from training.widths import times


def narrow_resnet(
    *,
    stem: int = 16,
    widths: Sequence[int] = (32, 32, 64),
    blocks: Sequence[int] = (1, 2, 3),
    necks: Sequence[int] = (4, 4),
    width: float = 1.0,
    noise: float = 0.25,
    classes: Sequence[str] = tuple("0123456789"),
) -> MultiExitNetwork:
    """Build the network.

    Args:
        stem: channels of the first convolution and block, at full size.
        widths: channels of the three stages, at a half, a half and a quarter of the size.
        blocks: residual blocks per stage, behind the one that changes the size.
        necks: channels that cross the first and the second cut, as [B, necks[k], 14, 14].
        width: times all channels that cross no cut.
        noise: see `training.lenet.Bottleneck`.
        classes: names.

    Returns:
        A network that takes `image`, uint8 [B, 1, 28, 28], and answers with logits at three exits.
    """
    stem, *widths = times(width, stem, *widths)
    trunk0 = nn.Sequential(
        FromPixels(),
        conv(1, stem, 3, padding=1),
        ResidualBlock(stem, widths[0], 2),
        *_blocks(widths[0], blocks[0]),
    )
    trunk1 = nn.Sequential(conv(necks[0], widths[1], 3, padding=1), *_blocks(widths[1], blocks[1]))
    trunk2 = nn.Sequential(
        conv(necks[1], widths[1], 3, padding=1), ResidualBlock(widths[1], widths[2], 2), *_blocks(widths[2], blocks[2])
    )
    stages = [
        StagePart(
            body=Fork(trunk0, Bottleneck(widths[0], necks[0], noise=noise)),
            reads=("image",),
            writes=("wide0", "cut0"),
            head=_head(widths[0], 14, len(classes)),
            head_reads=("wide0",),
        ),
        StagePart(
            body=Fork(trunk1, Bottleneck(widths[1], necks[1], noise=noise)),
            reads=("cut0",),
            writes=("wide1", "cut1"),
            head=_head(widths[1], 14, len(classes)),
            head_reads=("wide1",),
        ),
        StagePart(
            body=trunk2,
            reads=("cut1",),
            writes=("wide2",),
            head=_head(widths[2], 7, len(classes)),
            head_reads=("wide2",),
        ),
    ]
    return MultiExitNetwork(
        stages,
        inputs=(TensorSpec(name="image", dtype="uint8", shape=(1, 28, 28)),),
        classes=tuple(classes),
        image=ImageSpec(tensor="image", mode="L", size=(28, 28), fit="contain", layout="CHW"),
    )


def _blocks(width: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(width, width, 1) for _ in range(count)]


def _head(width: int, size: int, classes: int) -> nn.Sequential:
    pool = MixedPool((size, size))
    features = width * pool.left[0] * pool.left[1]
    return nn.Sequential(pool, nn.Flatten(), nn.Dropout(0.2), nn.Linear(features, classes))
