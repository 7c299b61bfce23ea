"""LeNet-5 (LeCun et al., 1998) at several widths, as networks of one stage whose only exit is the last.

Width 1 has LeNet-5's 6 and 16 channels; batch norm, ReLU and max-pooling as in today's versions of it.

Tensor names carry their axes: B rows of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from torch import nn

from common.manifest import ImageSpec, TensorSpec
from training.lenet import FromPixels, conv
from training.network import MultiExitNetwork, StagePart


def lenet5(*, width: float = 1.0) -> MultiExitNetwork:
    """Build LeNet-5 with `width` times its channels."""
    first, second, third, fourth = (round(width * channels) for channels in (6, 16, 120, 84))
    body = nn.Sequential(
        FromPixels(),
        *(conv(1, first, 5, padding=2), nn.MaxPool2d(2)),
        *(conv(first, second, 5), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(second * 25, third), nn.BatchNorm1d(third), nn.ReLU()),
        *(nn.Linear(third, fourth), nn.BatchNorm1d(fourth), nn.ReLU()),
    )
    return _alone(body, nn.Linear(fourth, 10))


def first_stage(*, stem: int = 16, head: int = 64) -> MultiExitNetwork:
    """Build B-LeNet's first stage with its exit, which then answers everything."""
    body = nn.Sequential(FromPixels(), conv(1, stem, 5, stride=2), conv(stem, head, 3, stride=2, padding=1))
    return _alone(body, nn.Sequential(nn.Flatten(), nn.Linear(head * 36, 10)))


def _alone(body: nn.Module, head: nn.Module) -> MultiExitNetwork:
    stage = StagePart(body=body, reads=("image",), writes=("last",), head=head, head_reads=("last",))
    return MultiExitNetwork(
        [stage],
        inputs=(TensorSpec(name="image", dtype="uint8", shape=(1, 28, 28)),),
        classes=tuple("0123456789"),
        image=ImageSpec(tensor="image", mode="L", size=(28, 28), fit="contain", layout="CHW"),
    )
