import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.manifest import TensorSpec
from tests.training.nets import skipping
from training.lenet import Bottleneck, b_lenet
from training.network import MultiExitNetwork, StagePart, StageWithExit
from training.phase import answer

X = TensorSpec(name="x", dtype="float32", shape=(3,))


def _part(reads: tuple[str, ...], writes: tuple[str, ...], head_reads: tuple[str, ...] | None = ()) -> StagePart:
    head = None if head_reads == () else nn.Identity()
    return StagePart(body=nn.Identity(), reads=reads, writes=writes, head=head, head_reads=head_reads or ())


def test_what_crosses_a_cut_follows_from_who_reads_it() -> None:
    network = skipping()
    assert [network.crossing(cut) for cut in range(3)] == [("image", "a"), ("image", "a", "b"), ("image", "c")]
    assert network.exits == (0, 2, 3)
    assert [network.stage_reads(k) for k in range(4)] == [("image",), ("a",), ("b", "a"), ("c", "image")]
    assert [network.stage_writes(k) for k in range(4)] == [("a", "logits0"), ("b",), ("c", "logits1"), ("logits2",)]


def test_stages_in_a_chain_are_the_network() -> None:
    network = skipping()
    image = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    live = {"image": image}
    for number in range(4):
        stage = StageWithExit(network, number)
        live |= dict(zip(stage.writes, stage(*(live[name] for name in stage.reads)), strict=True))
    for number, logits in enumerate(network(image)):
        assert torch.equal(live[f"logits{number}"], logits)


def test_a_head_may_read_what_only_passes_and_earlier_logits_stay_apart() -> None:
    stages = [
        StagePart(body=nn.Identity(), reads=("x",), writes=("a",)),
        StagePart(body=nn.Identity(), reads=("a",), writes=("b",), head=nn.Bilinear(3, 3, 2), head_reads=("b", "x")),
    ]
    network = MultiExitNetwork(stages, inputs=[X], classes=["no", "yes"])
    assert network.crossing(0) == ("x", "a")
    assert network.stage_reads(1) == ("a", "x")
    assert network(torch.ones(2, 3))[0].shape == (2, 2)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], "at least one stage"),
        ([_part(("x",), ("a",))], "last stage needs an exit head"),
        ([_part(("y",), ("a",), ("a",))], "Stage 0 reads 'y', which no earlier stage writes"),
        ([_part(("x",), ("a",)), _part(("a",), ("a",), ("a",))], "Stage 1 writes 'a' again"),
        ([_part(("x",), ("x",), ("x",))], "Stage 0 writes 'x' again"),
        ([_part(("x",), ("a",), ("b",))], "exit of stage 0 reads 'b'"),
        ([_part(("x",), ("a",), None)], "names no tensor under head_reads"),
    ],
)
def test_networks_that_do_not_add_up(parts: list[StagePart], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MultiExitNetwork(parts, inputs=[X], classes=["a"])


def test_b_lenet_has_three_exits_and_narrow_cuts() -> None:
    network = b_lenet().eval()
    (image,) = network.example()
    assert image.shape == (2, 1, 28, 28) and image.dtype == torch.uint8
    answers = answer(network, (image,), (0, 1, 2))
    assert [tuple(one.shape) for one in answers.logits.values()] == [(2, 10)] * 3
    assert [tuple(one.shape) for one in answers.crossing] == [(2, 6, 6, 6), (2, 8, 6, 6)]


def test_only_what_an_exit_needs_is_run() -> None:
    network = skipping()
    ran: list[str] = []
    for name, module in (*network.bodies.named_children(), *network.heads.named_children()):
        kind = "head" if module in set(network.heads.values()) else "body"
        module.register_forward_hook(lambda *_, said=f"{kind}{name}": ran.append(said))
    (image,) = network.example()
    whole = network(image)
    for number, wanted in ((0, "body0 head0"), (1, "body0 body1 body2 head2"), (2, "body0 body1 body2 body3 head3")):
        ran.clear()
        answers = answer(network, (image,), (number,))
        assert " ".join(ran) == wanted
        assert list(answers.logits) == [number] and torch.equal(answers.logits[number], whole[number])


def test_noise_stands_for_the_codec_only_while_training() -> None:
    neck = Bottleneck(2, 3, noise=0.5)
    x = torch.randn(4, 2, 5, 5)
    neck.train()
    noisy = [neck(x) for _ in range(2)]
    assert not torch.equal(*noisy) and all((one >= 0).all() for one in noisy)
    assert (noisy[0] - noisy[1]).abs().max() <= 0.5
    neck.eval()
    assert torch.equal(neck(x), neck(x))
