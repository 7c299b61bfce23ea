"""Small distortions of images, on tensors.

Each image is turned, scaled, sheared, shifted and bent a little, by its own random amounts (Simard et al., "Best
Practices for Convolutional Neural Networks Applied to Visual Document Analysis", 2003, for digits; bending is
their elastic distortion with a field interpolated between random displacements of a coarse grid of points).

Tensor names carry their axes: B rows of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_GRID = 5  # points per side of the elastic field


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """The largest distortions, each drawn uniformly between minus and plus."""

    degrees: float = 0.0
    shift: float = 0.0  # share of the image's side
    scale: float = 0.0  # 0.1: from 0.9 to 1.1, each axis by itself
    shear: float = 0.0  # tangent of the angle
    elastic: float = 0.0  # displacement of a grid point, as a share of the image's side

    def __call__(self, images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Distort a batch of images, uint8 or float; uint8 stays uint8. What enters from outside is 0."""
        grid_BHW2 = F.affine_grid(self._affine(len(images_BCHW), generator), list(images_BCHW.shape), False)
        if self.elastic > 0:
            points = torch.rand(len(images_BCHW), 2, _GRID, _GRID, generator=generator) * 2 - 1
            field_B2HW = F.interpolate(points, size=images_BCHW.shape[2:], mode="bicubic", align_corners=True)
            grid_BHW2 = grid_BHW2 + field_B2HW.permute(0, 2, 3, 1) * (2 * self.elastic)
        moved = F.grid_sample(images_BCHW.float(), grid_BHW2, align_corners=False)
        return moved.round().clamp(0, 255).to(torch.uint8) if images_BCHW.dtype == torch.uint8 else moved

    def _affine(self, rows: int, generator: torch.Generator) -> Tensor:
        """Random affine maps from output to input coordinates (-1..1), [B, 2, 3]."""

        def draw() -> Tensor:
            return torch.rand(rows, generator=generator) * 2 - 1

        angle = draw() * self.degrees * torch.pi / 180
        size_x, size_y = 1 + draw() * self.scale, 1 + draw() * self.scale
        shear, shift_x, shift_y = draw() * self.shear, draw() * self.shift * 2, draw() * self.shift * 2
        cos, sin = angle.cos(), angle.sin()
        rows_of_map = [
            *(cos * size_x, (shear * cos - sin) * size_y, shift_x),
            *(sin * size_x, (shear * sin + cos) * size_y, shift_y),
        ]
        return torch.stack(rows_of_map, dim=1).view(rows, 2, 3)
