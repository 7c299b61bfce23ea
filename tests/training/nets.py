"""Small torch networks for tests, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from common.manifest import TensorSpec
from tests.synthetic import CLASSES, SIDE, recipe
from training.lenet import FromPixels, conv
from training.network import MultiExitNetwork, StagePart


class Add(nn.Module):
    """A body that joins what it reads, then convolves."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(4, 4, 3, padding=1)

    def forward(self, near_BCHW: Tensor, far_BCHW: Tensor) -> Tensor:
        return self.conv(near_BCHW + far_BCHW)


def classifier() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4 * SIDE * SIDE, CLASSES))


def skipping() -> MultiExitNetwork:
    """Four stages, three exits: `a` skips over two cuts, stage 1 has no exit, the input itself is read late."""
    torch.manual_seed(0)
    stages = [
        StagePart(
            body=nn.Sequential(FromPixels(), conv(1, 4, 3, padding=1)),
            reads=("image",),
            writes=("a",),
            head=classifier(),
            head_reads=("a",),
        ),
        StagePart(body=conv(4, 4, 3, padding=1), reads=("a",), writes=("b",)),
        StagePart(body=Add(), reads=("b", "a"), writes=("c",), head=classifier(), head_reads=("c",)),
        StagePart(body=Late(), reads=("c", "image"), writes=("d",), head=classifier(), head_reads=("d",)),
    ]
    return shake(MultiExitNetwork(stages, inputs=_inputs(), classes=[str(c) for c in range(CLASSES)]))


class Late(nn.Module):
    """A body that reads the input again, scaled."""

    def forward(self, near_BCHW: Tensor, image_BCHW: Tensor) -> Tensor:
        return near_BCHW * 2 + image_BCHW.to(torch.float32) / 255


def small() -> MultiExitNetwork:
    """Two stages, two exits."""
    stages = [
        StagePart(
            body=nn.Sequential(FromPixels(), conv(1, 4, 3, padding=1)),
            reads=("image",),
            writes=("a",),
            head=classifier(),
            head_reads=("a",),
        ),
        StagePart(body=conv(4, 4, 3, padding=1), reads=("a",), writes=("b",), head=classifier(), head_reads=("b",)),
    ]
    return MultiExitNetwork(stages, inputs=_inputs(), classes=[str(c) for c in range(CLASSES)])


def vectors() -> MultiExitNetwork:
    """Two stages, two exits, for rows of six numbers and three classes."""
    stages = [
        StagePart(
            body=nn.Sequential(nn.Linear(6, 8), nn.ReLU()),
            reads=("x",),
            writes=("a",),
            head=nn.Linear(8, 3),
            head_reads=("a",),
        ),
        StagePart(
            body=nn.Sequential(nn.Linear(8, 8), nn.ReLU()),
            reads=("a",),
            writes=("b",),
            head=nn.Linear(8, 3),
            head_reads=("b",),
        ),
    ]
    return MultiExitNetwork(stages, inputs=[TensorSpec(name="x", dtype="float32", shape=(6,))], classes=["a", "b", "c"])


def _inputs() -> list[TensorSpec]:
    return [TensorSpec(name="image", dtype="uint8", shape=(1, SIDE, SIDE))]


def shake(network: MultiExitNetwork) -> MultiExitNetwork:
    """Give batch norms statistics as after training, so that folding them is put to the test."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


def shaken_lenet() -> MultiExitNetwork:
    from training.lenet import b_lenet

    torch.manual_seed(0)
    return shake(b_lenet())


def write_recipe(path: Path, **training: Any) -> Path:
    """A recipe for the tiny data set with the `small` network, registered as "small"."""
    document = recipe() | {
        "model": {"factory": "small"},
        "training": {"epochs": 2, "batch_size": 64, "exit_weights": [1.0, 0.5], "learning_rate": 0.01} | training,
    }
    path.write_text(yaml.safe_dump(document))
    return path
