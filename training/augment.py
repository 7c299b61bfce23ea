"""Small affine distortions of images, on tensors.

Each image is turned, scaled, sheared and shifted a little, by its own random amounts (Simard et al., "Best
Practices for Convolutional Neural Networks Applied to Visual Document Analysis", 2003, for digits).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Affine:
    """The largest distortions, each drawn uniformly between minus and plus."""

    degrees: float = 0.0
    shift: float = 0.0  # share of the image's side
    scale: float = 0.0  # 0.1: from 0.9 to 1.1
    shear: float = 0.0  # tangent of the angle

    def __call__(self, images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Distort a batch of images, uint8 or float; uint8 stays uint8."""
        rows = len(images_BCHW)

        def draw() -> Tensor:
            return torch.rand(rows, generator=generator) * 2 - 1

        angle = draw() * self.degrees * torch.pi / 180
        size_x, size_y = 1 + draw() * self.scale, 1 + draw() * self.scale
        shear, shift_x, shift_y = draw() * self.shear, draw() * self.shift * 2, draw() * self.shift * 2
        cos, sin = angle.cos(), angle.sin()
        theta = torch.stack(
            [cos * size_x, (shear * cos - sin) * size_y, shift_x, sin * size_x, (shear * sin + cos) * size_y, shift_y],
            dim=1,
        ).view(rows, 2, 3)
        grid = F.affine_grid(theta, list(images_BCHW.shape), align_corners=False)
        moved = F.grid_sample(images_BCHW.float(), grid, align_corners=False)
        return moved.round().clamp(0, 255).to(torch.uint8) if images_BCHW.dtype == torch.uint8 else moved
