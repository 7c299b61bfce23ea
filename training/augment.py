"""Small random changes of images, on tensors.

Each image is turned, scaled, sheared, shifted and bent a little, by its own random amounts (Simard et al., "Best
Practices for Convolutional Neural Networks Applied to Visual Document Analysis", 2003, for digits; bending is
their elastic distortion with a field interpolated between random displacements of a coarse grid of points). Or it is
cropped out of itself with a border around it, and turned left to right half the time (He et al., "Deep Residual
Learning", 2016, section 4.2, for photographs).

Tensor names carry their axes: B rows of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from common.manifest import ImageSpec
from training.settings import AugmentSettings

_GRID = 5  # points per side of the elastic field


Change = Callable[[Tensor, torch.Generator], Tensor]


def changes_for(settings: AugmentSettings, image: ImageSpec | None) -> Change | None:
    """What a recipe asks for, for images [B, C, H, W], or [B, H, W, C] where that is the layout; None for nothing."""
    distort = Distortion(**settings.model_dump(exclude={"crop", "flip"}))
    chain: list[Change] = []
    if distort != Distortion():
        chain.append(distort)
    if settings.crop or settings.flip:
        chain.append(CropFlip(border=settings.crop, flip=settings.flip))
    if not chain:
        return None
    channels_last = image is not None and image.layout == "HWC"

    def change(images: Tensor, generator: torch.Generator) -> Tensor:
        images_BCHW = images.permute(0, 3, 1, 2) if channels_last else images
        for one in chain:
            images_BCHW = one(images_BCHW, generator)
        return images_BCHW.permute(0, 2, 3, 1).contiguous() if channels_last else images_BCHW

    return change


@dataclass(frozen=True, kw_only=True)
class CropFlip:
    """Cut a window of the same size out of the image with a border of 0 around it, and mirror every second one."""

    border: int = 0  # pixels
    flip: bool = False

    def __call__(self, images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
        """Change a batch of images of any dtype."""
        rows, _, height, width = images_BCHW.shape
        top_B, left_B = torch.randint(0, 2 * self.border + 1, (2, rows), generator=generator)
        mirrored_B = torch.rand(rows, generator=generator) < (0.5 if self.flip else 0.0)
        across_BW = torch.arange(width).repeat(rows, 1)
        across_BW = torch.where(mirrored_B[:, None], across_BW.flip(1), across_BW) + left_B[:, None]
        down_BH = top_B[:, None] + torch.arange(height)
        wide_BCHW = F.pad(images_BCHW, (self.border,) * 4)
        index_B11 = torch.arange(rows)[:, None, None]
        window_BHWC = wide_BCHW.permute(0, 2, 3, 1)[index_B11, down_BH[:, :, None], across_BW[:, None, :]]
        return window_BHWC.permute(0, 3, 1, 2).contiguous()


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
