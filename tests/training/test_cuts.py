"""Where networks can be cut, and what is said where they cannot."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from tests.training import zoo
from tests.training.nets import shake
from training.add_exits import add_exits
from training.choice import choose
from training.cuts import Places, captured_with, places_of
from training.network import MultiExitNetwork
from training.proof import chain


def places(model: nn.Module, *shape: int, max_tensors: int = 8) -> Places:
    return places_of(captured_with(model, torch.randn(2, *shape))[1], max_tensors=max_tensors)


def equal(network: MultiExitNetwork, model: nn.Module, *shape: int) -> bool:
    x = torch.randn(5, *shape)
    with torch.inference_mode():
        wanted, found = model.eval()(x), chain(network, {network.inputs[0].name: x})[-1]
    return bool((wanted - found).abs().max() <= 1e-4 * max(1.0, float(wanted.abs().max())))


def test_a_chain_of_layers_can_be_cut_behind_each() -> None:
    """Behind pooling and activation, where the fewest bytes cross; never inside what costs nothing."""
    torch.manual_seed(0)
    model = zoo.AlexNet()
    found = places(model, 3, 96, 96)
    assert [cut.name for cut in found.cuts] == [
        "features.0", "features.3", "features.6", "features.8", "features", "classifier.1", "classifier.4"
    ]  # fmt: skip
    assert [len(cut.tensors) for cut in found.cuts] == [1] * 7
    assert [cut.tensors[0].shape for cut in found.cuts[:3]] == [(8, 11, 11), (12, 5, 5), (16, 5, 5)]
    assert found.closed == ()
    first = found.cuts[0]
    assert first.flops_before == 2 * 23 * 23 * 8 * 3 * 121 and first.bytes == 8 * 11 * 11 * 4
    assert first.parameters_before == 8 * (3 * 121 + 1)
    whole = sum(p.numel() for p in model.parameters())
    for cut in found.cuts:
        assert cut.flops_before + cut.flops_after == found.flops
        assert cut.parameters_before + cut.parameters_after == whole
    assert "features.2" in first.also  # the pooling that ends there too


def test_dense_connections_send_everything_that_is_read_later() -> None:
    torch.manual_seed(0)
    model = shake(zoo.DenseNet())
    found = places(model, 3, 16, 16)
    crossing = {cut.name: [tensor.shape for tensor in cut.tensors] for cut in found.cuts}
    assert crossing["convs.0"] == [(8, 16, 16), (4, 16, 16)]
    assert crossing["convs.1"] == [(8, 16, 16), (4, 16, 16), (4, 16, 16)]
    assert crossing["transition"] == [(8, 8, 8)]
    network = add_exits(model, torch.randn(1, 3, 16, 16), ["convs.0", "convs.1", "transition"])
    assert network.crossing(1) == ("convs.0.tensor0", "convs.0.tensor1", "convs.1")  # two pass by
    assert equal(network, model, 3, 16, 16)


def test_a_u_shape_sends_every_level_that_is_read_on_the_way_up() -> None:
    torch.manual_seed(0)
    model = zoo.UNet()
    found = places(model, 3, 16, 16)
    assert [(cut.name, len(cut.tensors)) for cut in found.cuts] == [
        ("down1", 1), ("down2", 2), ("middle", 2), ("up2", 1), ("up1", 1)
    ]  # fmt: skip
    network = add_exits(model, torch.randn(1, 3, 16, 16), ["down1", "down2", "middle"])
    assert equal(network, model, 3, 16, 16)
    few = places(model, 3, 16, 16, max_tensors=1)
    assert [cut.name for cut in few.cuts] == ["down1", "up2", "up1"]
    with pytest.raises(
        ConfigError, match=r"cannot be cut at 'middle': 2 tensors .* nearest legal cut is '(down1|up2)'"
    ):
        choose(few, ["middle"])


def test_weights_and_sizes_do_not_cross() -> None:
    """Positions, a class token, sizes and masks are made anew where they are needed."""
    torch.manual_seed(0)
    ids, mask = torch.ones(2, 12, dtype=torch.int64), torch.ones(2, 12, dtype=torch.int64)
    captured = captured_with(zoo.TextEncoder(depth=2), {"input_ids": ids, "attention_mask": mask})[1]
    layer = next(cut for cut in places_of(captured).cuts if cut.name == "layers.0")
    assert [(t.dtype, t.shape) for t in layer.tensors] == [("int64", ("tokens",)), ("float32", ("tokens", 24))]
    assert layer.bytes == 12 * 8 + 12 * 24 * 4
    vit = {cut.name: cut for cut in places(zoo.VisionTransformer(depth=2), 3, 16, 16).cuts}
    assert [t.shape for t in vit["blocks.0"].tensors] == [(17, 24)]
    assert [t.shape for t in vit["patches"].tensors] == [(24, 4, 4)]


class Shared(nn.Module):
    """One layer called three times, and a weight read at both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.classify = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return self.classify(x @ self.layer.weight)


def test_a_layer_that_is_called_again_has_a_cut_behind_every_call() -> None:
    torch.manual_seed(0)
    model = Shared()
    found = places(model, 6)
    assert [cut.name for cut in found.cuts] == ["layer", "layer@1", "layer@2", "matmul"]
    assert [cut.parameters_before for cut in found.cuts] == [42, 42, 42, 42]
    assert [cut.parameters_after for cut in found.cuts] == [63, 63, 57, 21]
    network = add_exits(model, torch.randn(1, 6), ["layer", "layer@2"])
    assert equal(network, model, 6)
    assert len({id(p) for p in network.parameters()} & {id(p) for p in model.parameters()}) == 4


class Recurrent(nn.Module):
    """Convolutions, then a recurrent layer that starts with zeros for every row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, padding=1)
        self.rnn = nn.LSTM(8, 8, batch_first=True)
        self.classify = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.rnn(torch.relu(self.conv(x)).transpose(1, 2))
        return self.classify(x[:, -1])


class InPlace(nn.Module):
    """Writes into parts of tensors, and into views of them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x[:, 0] = 0.5
        half = x[:, 3:]
        half.mul_(2)
        x += 1
        return self.c(torch.relu_(self.b(x)) + x)


class NoGrad(InPlace):
    """Runs a part without gradients, and starts from made tensors of the rows' number."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.a(x)
        ramp = torch.arange(6, device=x.device, dtype=x.dtype).expand(len(x), -1)
        return self.c(self.b(x) * ramp + torch.zeros(len(x), 6, device=x.device))


@pytest.mark.parametrize(
    ("make", "shape", "at"),
    [(Recurrent, (3, 10), ["conv", "rnn"]), (InPlace, (6,), ["a", "b"]), (NoGrad, (6,), ["b"])],
)
@pytest.mark.filterwarnings("ignore:While training")
def test_what_else_networks_do(make: Callable[[], nn.Module], shape: tuple[int, ...], at: list[str]) -> None:
    torch.manual_seed(0)
    model = make()
    assert equal(add_exits(model, torch.randn(2, *shape), at), model, *shape)


class Normalised(nn.Module):
    """Weights that are computed anew in every forward; one keeps an estimate in buffers while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
        self.b = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))
        self.c = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


def test_buffers_that_training_changes_are_changed_as_in_the_network() -> None:
    torch.manual_seed(0)
    whole = Normalised()
    network = add_exits(copy.deepcopy(whole), torch.randn(2, 6), ["a", "b"])
    x = torch.randn(4, 6)
    for _ in range(3):
        wanted, found = whole.train()(x), network.train()(x)[-1]
    assert torch.allclose(wanted, found, atol=1e-6)
    buffers = {name.partition("tensors.")[2]: tensor for name, tensor in network.named_buffers()}
    assert len(list(whole.named_buffers())) == 2
    assert all(torch.allclose(buffers[name], tensor, atol=1e-6) for name, tensor in whole.named_buffers())


def test_what_training_does_beyond_serving_is_said() -> None:
    with pytest.warns(UserWarning, match="While training, the network does what cannot be cut as it serves"):
        add_exits(InPlace(), torch.randn(2, 6), ["a"])


class DropsRows(nn.Module):
    """Stochastic depth written out in a block, with additions and products of its own in front of the residual's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv(x))
        if self.training:
            keep = 0.5 + torch.rand(len(x), 1, 1)
            y = y / 0.5 * keep.floor_()
        y += x
        return y


def test_what_a_block_does_only_while_training_is_kept_and_its_exit_reads_the_same_tensor() -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(DropsRows(), DropsRows(), nn.Flatten(), nn.Linear(32, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = add_exits(copy.deepcopy(whole), torch.randn(2, 4, 8), ["0", "1"]).train()
    x = torch.randn(5, 4, 8)
    torch.manual_seed(1)
    wanted = whole.train()(x)
    torch.manual_seed(1)
    read = network.run_body(0, {"input": x})
    torch.manual_seed(1)
    assert torch.equal(whole[0](x), read["0"])
    torch.manual_seed(1)
    assert torch.allclose(network(x)[-1], wanted)


class Named(nn.Module):
    """Returns more than logits, and more still while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.aside = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3), nn.Linear(6, 9)

    def forward(self, x: Tensor) -> dict[str, Tensor | None]:
        x = torch.relu(self.a(x))
        found = {"aside": self.aside(x), "none": None, "logits": self.c(torch.relu(self.b(x)))}
        return found | {"more": x} if self.training else found


def test_of_what_a_network_returns_only_the_logits_count() -> None:
    torch.manual_seed(0)
    model = Named().eval()
    found = places_of(captured_with(model, torch.randn(2, 6))[1])
    assert [(cut.name, len(cut.tensors)) for cut in found.cuts] == [("a", 1), ("b", 1)]
    assert found.flops == 2 * (36 + 36 + 18)
    x = torch.randn(4, 6)
    network = add_exits(model, x, ["a"])
    assert torch.allclose(model(x)["logits"], network(x)[-1])
    assert torch.allclose(model.train()(x)["logits"], network.train()(x)[-1])


class Windows(nn.Module):
    """Folds windows of a row into the axis of rows, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(torch.relu(self.a(x.reshape(-1, 2, 6))))
        return self.c(x.reshape(-1, 24))


def test_rows_that_are_mixed_with_something_else_cannot_cross() -> None:
    said = r"\[2_batch, 2, 6\] would have to cross, and none of its axes counts the rows alone"
    with pytest.raises(ConfigError, match=said):
        add_exits(Windows(), torch.randn(2, 4, 6), ["a"])


class Columns(nn.Module):
    """Whole numbers that are no tokens: so many columns, each with a meaning."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.a, self.b = (
            nn.ModuleList([nn.Embedding(9, 4) for _ in range(3)]),
            nn.Linear(12, 6),
            nn.Linear(6, 3),
        )

    def forward(self, columns: Tensor) -> Tensor:
        x = torch.cat([embed(columns[:, k]) for k, embed in enumerate(self.embed)], 1)
        return self.b(torch.relu(self.a(x)))


def test_columns_of_whole_numbers_are_no_tokens() -> None:
    network = add_exits(Columns(), torch.randint(0, 9, (2, 3)), ["a"])
    assert network.inputs[0].shape == (3,) and not network.buckets
    with pytest.raises(ConfigError, match="The network does not take rows of 2 columns"):
        add_exits(Columns(), torch.randint(0, 9, (2, 3)), ["a"], shapes={"columns": ["columns"]})


class Layers(nn.Module):
    """Three layers, and what a test lets happen between the second and the third."""

    def __init__(self, between: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.between(self.b(torch.relu(self.a(x)))))


def _branch(x: Tensor) -> Tensor:
    return x * 2 if x.sum() > 0 else x


def _number(x: Tensor) -> Tensor:
    return x * int(x.max())


def _numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(x.detach().numpy())


def _fixed(x: Tensor) -> Tensor:
    return x.view(3, 6)


@pytest.mark.parametrize(
    ("between", "why", "place"),
    [
        (_branch, "branches on data", r" \(test_cuts.py, line \d+: `return x \* 2 if x.sum\(\) > 0 else x`\)"),
        (_number, "turns data into numbers", r" \(test_cuts.py, line \d+: `return x \* int\(x.max\(\)\)`\)"),
        (_numpy, "turns data into numbers", r" \(test_cuts.py, line \d+: .*numpy.*\)"),
        (_fixed, "fixes the number of rows", ""),
    ],
)
def test_what_cannot_be_captured_names_the_place_and_the_nearest_cut(
    between: Callable[[Tensor], Any], why: str, place: str
) -> None:
    said = rf"cannot be cut into stages: .*{why}.*{place}\. The nearest legal cut in front of that is 'b'\.$"
    with pytest.raises(ConfigError, match=said) as caught:
        add_exits(Layers(between), torch.randn(2, 6), ["a"])
    assert "\n" not in str(caught.value)


def test_no_cut_lies_in_front_of_a_branch_at_the_start() -> None:
    class Start(Layers):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(_branch(x))

    with pytest.raises(ConfigError, match=r"No legal cut lies in front of that\.$"):
        add_exits(Start(torch.relu), torch.randn(2, 6), ["a"])


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (["bb"], r"has no cut 'bb'\. The nearest name is 'b'"),
        (["nowhere"], r"has no cut 'nowhere'\. There are a, b\.$"),
        (["c"], r"at 'c' would leave nothing to compute behind it\. The nearest legal cut is 'b'"),
        (["a", "a"], r"names the cut 'a' twice"),
        ([], r"at is \[\]"),
        (0, r"at is 0\. It must be a number of exits from 1 to 3"),
        (9, r"at is 9\. It must be a number of exits from 1 to 3"),
        ([1.0], r"at holds 1\.0\. A share of the FLOPs must lie between 0 and 1"),
        ([True], r"at holds True"),
        ([0.1, 0.2, 0.3], r"more exits than the network has legal cuts, 2"),
    ],
)
def test_a_cut_that_is_not_there(at: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        add_exits(Layers(torch.relu), torch.randn(2, 6), at)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [Layers(torch.relu), nn.Linear(6, 3)])
def test_one_exit_leaves_the_network_whole(model: nn.Module) -> None:
    """Also where nothing could be cut."""
    network = add_exits(model, example := torch.randn(2, 6), 1)
    assert len(network.parts) == len(network.exits) == 1
    with torch.no_grad():
        torch.testing.assert_close(network(example)[0], model(example))


def test_cuts_by_share_and_number_take_few_tensors_and_bytes() -> None:
    torch.manual_seed(0)
    found = places(zoo.MobileNetV2(repeats=2), 3, 32, 32)
    for chosen in (choose(found, [0.3, 0.6]), choose(found, 3)):
        assert all(len(cut.tensors) == 1 for cut in chosen)  # behind blocks, not beside a residual
    near = choose(found, [0.5])[0]
    assert abs(near.share - 0.5) <= 0.15
    assert choose(found, 0.5) == choose(found, [0.5]) and choose(found, "features.3") == choose(found, ["features.3"])


@pytest.mark.parametrize(
    ("model", "example", "said"),
    [
        (nn.Linear(6, 3), torch.randn(2, 7), r"does not take the example, input float32 \[3, 7\]: .*shapes"),
        (nn.Linear(6, 3), torch.tensor(1.0), "has no axis"),
        (nn.Linear(6, 3), [1], "is a int. It must be a tensor"),
        (nn.Linear(6, 3), [], "holds no tensor"),
        (nn.Linear(6, 3), {"x": torch.randn(2, 6)}, "does not take the example, x float32"),
        (nn.Bilinear(2, 2, 3), (torch.randn(2, 2), torch.randn(3, 2)), r"have \[2, 3\] rows"),
        (nn.Linear(6, 1), torch.randn(2, 6), r"returns float32 \[3, 1\]\. A classifier returns float logits"),
        (nn.Conv2d(1, 2, 1), torch.randn(2, 1, 4, 4), r"returns float32 \[3, 2, 4, 4\]"),
        (nn.LSTM(3, 3), torch.randn(2, 5, 3), "returns a tuple. It must return logits, alone or under"),
        (nn.Linear(6, 3), torch.randn(2, 6), "cannot be cut anywhere, since its work is in one operation"),
    ],
)
def test_networks_and_examples_that_do_not_fit(model: nn.Module, example: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        add_exits(model, example, 2)
    assert "\n" not in str(caught.value)


def test_an_output_that_changes_from_run_to_run_is_refused() -> None:
    for draw in (torch.rand, lambda size: (torch.rand(size) + 0.999999).floor()):  # the second hardly ever shows
        with pytest.raises(ConfigError, match=r"draws random numbers while it serves \(aten\.rand\.default\)"):
            add_exits(Layers(lambda x, draw=draw: x * draw(6)), torch.randn(2, 6), ["a"])
    with pytest.raises(ConfigError, match=r"differ from the network by .*random numbers"):
        add_exits(Layers(lambda x: nn.functional.dropout(x, 0.5, True)), torch.randn(2, 6), ["a"])


def test_a_softmax_at_the_end_is_left_out_and_said() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3), nn.Softmax(dim=-1))
    with pytest.warns(UserWarning, match="ends with a softmax, which is left out"):
        network = add_exits(model, torch.randn(2, 6), 2)
    x = torch.randn(4, 6)
    assert torch.allclose(network(x)[-1].softmax(1), model(x), atol=1e-6)


def test_the_networks_own_modes_and_statistics_stay_as_they_were() -> None:
    model = zoo.SensorNet().train()
    model.blocks[0].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    add_exits(model, torch.randn(2, 6, 64), 2)
    assert model.training and not model.blocks[0].training and model.blocks[1].training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Series(nn.Module):
    """Convolutions that halve the length twice, over windows of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(6, 8, 4, 2, 1), nn.Conv1d(8, 12, 4, 2, 1)
        self.c = nn.Linear(12, 3)

    def forward(self, window: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(window)))).mean(-1))


def test_rows_of_any_length_and_what_becomes_of_their_length_inside() -> None:
    torch.manual_seed(0)
    model, shapes = Series().eval(), {"window": [6, "samples"]}
    network = add_exits(model, torch.randn(1, 6, 32), ["a", "b"], shapes=shapes, buckets={"samples": [16, 32]})
    assert network.row_shape("a", torch.zeros(1)) == (8, "samples__2")
    assert network.buckets == {"samples": (16, 32), "samples__2": (8, 16)}
    for length in (16, 22, 32):
        x = torch.randn(3, 6, length)
        with torch.inference_mode():
            assert torch.allclose(chain(network, {"window": x})[-1], model(x), atol=1e-6)
    for given, said in (
        ({"samples": [64, 32]}, "It must be whole numbers in rising order"),
        ({"tokens": [32]}, "buckets names 'tokens'. The inputs have samples"),
    ):
        with pytest.raises(ConfigError, match=said):
            add_exits(model, torch.randn(1, 6, 32), ["a"], shapes=shapes, buckets=given)
    for wrong, said in (
        ({"x": [6, "samples"]}, "shapes names 'x'"),
        ({"window": ["samples"]}, "gives 'window' the row shape"),
        ({"window": [7, "samples"]}, "gives 'window' the row shape"),
    ):
        with pytest.raises(ConfigError, match=said):
            add_exits(model, torch.randn(1, 6, 32), ["a"], shapes=wrong)


def test_a_mask_must_mark_the_first_token() -> None:
    ids, mask = torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64)
    mask[1, 0] = 0
    with pytest.raises(ConfigError, match="says different things of the first token"):
        add_exits(zoo.TextEncoder(depth=1), {"input_ids": ids, "attention_mask": mask}, ["layers.0.output"])
    with pytest.raises(ConfigError, match=r"mask is 'masks'\. It must be an input of shape"):
        add_exits(
            zoo.TextEncoder(depth=1), {"input_ids": ids, "attention_mask": ids}, ["layers.0.output"], mask="masks"
        )


def test_tensors_that_are_made_on_the_way_follow_the_data_to_another_device() -> None:
    inputs = {name: torch.ones(2, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    network = add_exits(zoo.TextEncoder(depth=1), inputs, ["layers.0.output"]).to("meta")
    for mode in (True, False):
        logits = network.train(mode)(*(tensor.to("meta") for tensor in network.example()))
        assert {one.device.type for one in logits} == {"meta"}


class Sided(nn.Module):
    """A picture, and a vector that joins it late: as it is, and with a layer of its own that runs first."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Linear(5, 6)
        self.a, self.b = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1)
        self.end = nn.Linear(8 + 6 + 5, 3)

    def forward(self, picture: Tensor, meta: Tensor) -> Tensor:
        side = self.side(meta).relu()
        x = self.b(self.a(picture).relu()).relu()
        return self.end(torch.cat([x.mean((2, 3)), side, meta], 1))


def test_a_head_reads_the_trunk_and_not_what_passes_beside_it() -> None:
    example = {"picture": torch.randn(2, 1, 16, 16), "meta": torch.randn(2, 5)}
    network = add_exits(Sided(), example, ["a"])
    crossing = network.crossing(0)
    assert len(crossing) == 3 and "meta" in crossing
    (read,) = network.parts[0].head_reads
    assert network.row_shape(read, torch.zeros(1)) == (4, 8, 8)
