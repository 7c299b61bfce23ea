import torch

from common.manifest import ImageSpec
from training.augment import CropFlip, Distortion, changes_for
from training.settings import AugmentSettings


def test_distortions_are_small_random_and_repeatable() -> None:
    images = torch.zeros(3, 1, 9, 9, dtype=torch.uint8)
    images[:, :, 3:6, 3:6] = 200
    still = Distortion()(images, torch.Generator().manual_seed(0))
    assert torch.equal(still, images)
    distort = Distortion(degrees=20, shift=0.1, scale=0.2, shear=0.2, elastic=0.1)
    moved = [distort(images, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*moved) and moved[0].dtype == torch.uint8
    assert not torch.equal(moved[0], images)
    assert not torch.equal(moved[0][0], moved[0][1])  # every image by its own amounts
    assert distort(images.float(), torch.Generator()).dtype == torch.float32
    far = Distortion(shift=0.5)(images, torch.Generator().manual_seed(3))
    assert far.float().mean() <= images.float().mean() + 1


def test_windows_are_cut_and_mirrored() -> None:
    images = torch.arange(1, 51, dtype=torch.uint8).reshape(1, 2, 5, 5).expand(200, 2, 5, 5)
    wide = torch.nn.functional.pad(images[0], (2, 2, 2, 2))
    windows = [wide[:, y : y + 5, x : x + 5] for y in range(5) for x in range(5)]
    allowed = [window.flatten().tolist() for one in windows for window in (one, one.flip(2))]
    cut = CropFlip(border=2, flip=True)(images, torch.Generator().manual_seed(0))
    assert cut.dtype == torch.uint8 and cut.shape == images.shape and cut.is_contiguous()
    found = [allowed.index(one.flatten().tolist()) for one in cut]
    assert len(set(found)) > 40  # of 50
    assert 60 < sum(number % 2 for number in found) < 140
    again = CropFlip(border=2, flip=True)(images, torch.Generator().manual_seed(0))
    assert torch.equal(cut, again)
    assert torch.equal(CropFlip()(images, torch.Generator()), images)


def test_what_a_recipe_asks_for() -> None:
    assert changes_for(AugmentSettings(), None) is None
    rows_last = torch.arange(75, dtype=torch.uint8).reshape(1, 5, 5, 3).expand(9, 5, 5, 3)
    spec = ImageSpec(tensor="image", mode="RGB", size=(5, 5), layout="HWC")
    change = changes_for(AugmentSettings(flip=True), spec)
    assert change is not None
    for before, after in zip(rows_last, change(rows_last, torch.Generator().manual_seed(1)), strict=True):
        assert torch.equal(before, after) or torch.equal(before.flip(1), after)
    both = changes_for(AugmentSettings(degrees=5.0, crop=1), None)
    assert both is not None and both(torch.zeros(2, 1, 6, 6), torch.Generator()).shape == (2, 1, 6, 6)
