import torch

from training.cost import costs
from training.narrow_resnet import narrow_resnet
from training.phase import answer

SHIPPED = {"blocks": (1, 2, 2), "classes": ("shirt", "shoe", "bag")}


def test_three_exits_and_cuts_narrower_than_the_image() -> None:
    network = narrow_resnet(**SHIPPED).eval()
    (image,) = network.example()
    answers = answer(network, (image,), (0, 1, 2))
    assert image.shape == (2, 1, 28, 28) and image.dtype == torch.uint8
    assert [tuple(one.shape) for one in answers.logits.values()] == [(2, 3)] * 3
    assert [tuple(one.shape) for one in answers.crossing] == [(2, 4, 14, 14)] * 2


def test_every_tier_gets_its_share_of_the_work() -> None:
    network = narrow_resnet(**SHIPPED)
    cost = costs(network)
    assert all(0.2 < body / cost.whole < 0.5 for body in cost.bodies)
    assert all(head < 0.01 * cost.whole for head in cost.heads)
    assert sum(weight.numel() for weight in network.parameters()) * 4 < 1.5e6
