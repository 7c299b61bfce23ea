"""Which exits pay, which are kept, and what a head may cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import ConfigError
from tests.training import zoo
from training.add_exits import add_exits
from training.cost import Costs, costs, dear_heads
from training.heads import Activation, ExitHead, HeadSettings, MixedPool, TokenPool, make_head
from training.layout import features_last
from training.network import MultiExitNetwork
from training.placement import Measured, place_greedily, worth
from training.proof import chain
from training.prune import keep_exits, measure

COSTS = Costs(bodies=(100, 100, 100, 100), heads=(10, 10, 90, 10), exits=(0, 1, 2, 3))


def measured(easy: tuple[float, ...], cost: Costs = COSTS, rows: int = 1000) -> Measured:
    """Rows of rising difficulty: exit `k` is sure and right on the share `easy[k]`, elsewhere unsure and wrong."""
    labels_N = np.zeros(rows, np.int64)
    hardness_N = (np.arange(rows) + 0.5) / rows
    logits = [np.stack([np.where(hardness_N < share, 5.0 - hardness_N, -0.1), np.zeros(rows)], 1) for share in easy]
    return Measured.of([one.astype(np.float32) for one in logits], labels_N, cost)


def test_an_exit_pays_when_what_leaves_saves_more_than_its_head_costs() -> None:
    verdicts = worth(measured((0.5, 0.52, 0.9, 1.0)), [0.9, 0.9, 0.9, 0.0])
    assert [one.exit for one in verdicts] == [0, 1, 2]
    assert [one.rate for one in verdicts] == pytest.approx([0.5, 0.02, 0.38])
    assert [one.pays for one in verdicts] == [True, False, False]
    # by hand: 0.5 leave at 110, 0.02 at 220, 0.38 at 410, 0.1 at 520
    assert verdicts[0].mean_flops == pytest.approx(55 + 4.4 + 155.8 + 52)
    assert verdicts[1].mean_flops_without == pytest.approx(55 + 0.4 * 400 + 0.1 * 510)
    assert "does not pay: 2.0% of the rows leave there" in str(verdicts[1])
    assert verdicts[2].accuracy_without == 1.0


def test_the_greedy_placement_keeps_what_pays() -> None:
    kept = place_greedily(measured((0.5, 0.52, 0.9, 1.0)), target_drop=0.0)
    assert kept.kept == (0, 3) and kept.accuracy == 1.0
    assert kept.mean_flops == pytest.approx(0.5 * 110 + 0.5 * 420)
    assert place_greedily(measured((0.0, 0.0, 0.0, 1.0)), target_drop=0.0).kept == (3,)
    assert place_greedily(measured((0.3, 0.6, 0.6, 1.0)), target_drop=0.0).kept == (0, 1, 3)


def test_what_pays_no_more_once_an_earlier_exit_is_there_goes_again() -> None:
    cost = Costs(bodies=(100, 100, 100), heads=(1, 60, 1), exits=(0, 1, 2))
    assert place_greedily(measured((0.0, 0.85, 1.0), cost), target_drop=0.0).kept == (1, 2)
    assert place_greedily(measured((0.8, 0.85, 1.0), cost), target_drop=0.0).kept == (0, 2)


def test_its_work_is_linear_in_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    count = Measured.outcome

    def counted(self: Measured, *args: object) -> object:
        calls.append(1)
        return count(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Measured, "outcome", counted)
    for exits in (5, 10, 20):
        calls.clear()
        cost = Costs(bodies=(10,) * exits, heads=(1,) * exits, exits=tuple(range(exits)))
        place_greedily(measured(tuple(np.linspace(0.1, 1.0, exits)), cost), target_drop=0.0)
        assert len(calls) <= 2 * exits


@pytest.fixture
def network() -> MultiExitNetwork:
    torch.manual_seed(0)
    return add_exits(zoo.SensorNet(), torch.randn(1, 6, 64), 3)


def test_pruned_exits_leave_their_stages(network: MultiExitNetwork) -> None:
    pruned = keep_exits(network, [1, 2])
    assert pruned.exits == (1, 2) and len(pruned.parts) == 3 and not pruned.training
    x = torch.randn(4, 6, 64)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(pruned(x), network(x)[1:], strict=True))
        assert torch.allclose(chain(pruned, {"window": x})[-1], network(x)[-1], atol=1e-6)
    with pytest.raises(ConfigError, match=r"There is no exit 7\. The network has exits 0 to 2"):
        keep_exits(network, [7, 2])
    with pytest.raises(ConfigError, match="Exit 2, the last one, must stay"):
        keep_exits(network, [0, 1])


def test_pruning_minds_cascades() -> None:
    torch.manual_seed(0)
    names = ["features.0", "features.3", "features.6"]
    cascaded = add_exits(zoo.AlexNet(), torch.randn(1, 3, 96, 96), names, head=HeadSettings(cascade=True))
    with pytest.raises(ConfigError, match="Exit 1 reads the logits of exit 0, so that one cannot go alone"):
        keep_exits(cascaded, [1, 2, 3])
    without = keep_exits(cascaded, [0, 3])
    assert without.exits == (0, 3) and without.crossing(0) == ("features.0",)


def test_exits_are_measured_as_they_are(network: MultiExitNetwork) -> None:
    x = np.random.default_rng(0).normal(size=(7, 6, 64)).astype(np.float32)
    labels_N = np.arange(7) % 8
    found = measure(network.train(), {"window": x}, labels_N)
    assert network.training and found.scores.scores_EN.shape == (3, 7) and found.costs == costs(network)
    assert place_greedily(found).kept[-1] == 2
    with pytest.raises(ConfigError, match=r"criterion is 'luck'\. It must be one of"):
        measure(network, {"window": x}, labels_N, criterion="luck")


def test_costs_are_counted_by_body_and_head(network: MultiExitNetwork) -> None:
    found = costs(network)
    assert found.bodies == (2 * 64 * 6 * 16 * 5, 2 * 32 * 16 * 24 * 5, 2 * 16 * 24 * 32 * 5)
    assert found.heads == (2 * 16 * 4 * 8, 2 * 24 * 4 * 8, 2 * 32 * 8)
    assert found.whole == sum(found.bodies) + 512
    assert found.leaving() == (61440 + 1024, 61440 + 122880 + 1024 + 1536, sum(found.bodies) + 1024 + 1536 + 512)
    assert found.leaving((1, 2))[0] == 61440 + 122880 + 1536


def test_a_head_dearer_than_going_on_is_said() -> None:
    assert dear_heads(COSTS) == []
    cost = Costs(bodies=(100, 0, 50), heads=(70, 0, 5), exits=(0, 2))
    assert dear_heads(cost) == [
        "The head of exit 0 takes 70 FLOPs, more than going on to exit 1 and asking there, 55: a smaller head, or no "
        "exit there, saves more."
    ]
    with pytest.warns(UserWarning, match="The head of exit 0 takes .* more than going on to exit 1"):
        add_exits(zoo.LeNet5(), torch.randn(1, 1, 28, 28), ["fc1"], head=[nn.Sequential(nn.Linear(120, 900), nn.Linear(900, 10))])  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "activation", "inner"),
    [
        (HeadSettings(), Activation(shape=(9,), features_last=True), "_Flat"),
        (HeadSettings(), Activation(shape=(4, 14, 14), features_last=False), "MixedPool"),
        (HeadSettings(), Activation(shape=(4, 30), features_last=False), "MixedPool"),
        (HeadSettings(), Activation(shape=(17, 8), features_last=True), "TokenPool"),
        (HeadSettings(), Activation(shape=(7, 7, 8), features_last=True), "TokenPool"),
        (HeadSettings(kind="linear"), Activation(shape=(4, 3, 3), features_last=False), "_Flat"),
        (HeadSettings(kind="conv", layers=2, channels=6), Activation(shape=(4, 9, 9), features_last=False), "Conv2d"),
        (HeadSettings(kind="conv", cascade=True, dropout=0.5), Activation(shape=(4, 9), features_last=False), "Conv1d"),
        (HeadSettings(kind="tokens", token="first"), Activation(shape=("tokens", 8), features_last=True), "TokenPool"),
        (HeadSettings(), Activation(shape=("tokens", 8), features_last=True), "TokenPool"),
        (HeadSettings(), Activation(shape=(8, "tokens"), features_last=False), "TokenPool"),
        (HeadSettings(), Activation(shape=(4, 5, 6, 7), features_last=False), "MixedPool"),
    ],
)
def test_heads_by_shape(settings: HeadSettings, activation: Activation, inner: str) -> None:
    head = make_head(settings, activation, 5)
    assert isinstance(head, ExitHead) and inner in str(head.features)
    row = [11 if isinstance(size, str) else size for size in activation.shape]
    tensors = [torch.randn(3, *row), *([torch.randn(3, 5)] if settings.cascade else [])]
    assert head(*tensors).shape == (3, 5)


def test_mixed_pooling_learns_its_mix() -> None:
    pool = MixedPool((8, 8))
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        pool.mix.fill_(1.0)
        assert torch.equal(pool(x), torch.nn.functional.max_pool2d(x, 2))
        pool.mix.fill_(0.0)
        assert torch.allclose(pool(x), torch.nn.functional.avg_pool2d(x, 2))
    pool(x).sum().backward()
    assert pool.mix.grad is not None and pool.left == (4, 4)
    assert MixedPool((3,)).left == (3,) and MixedPool((112, 112)).left == (4, 4)


@pytest.mark.parametrize("real", [True, False])
def test_filling_is_left_out_of_the_mean_whatever_the_mask_calls_it(real: bool) -> None:
    pool = TokenPool(4, "mean", real=real)
    x, mask = torch.randn(2, 5, 4), torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool() == real
    wanted = torch.stack([pool.norm(x)[0, :3].mean(0), pool.norm(x)[1, 0]])
    assert torch.allclose(pool(x, mask), wanted, atol=1e-6)
    assert torch.isfinite(pool(x, torch.full_like(mask, not real))).all()  # nothing but filling
    largest = TokenPool(4, "largest", real=real, features_last=False)
    wanted = torch.stack([largest.norm(x)[0, :3].amax(0), largest.norm(x)[1, 0]])
    assert torch.allclose(largest(x.transpose(1, 2), mask), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "activation", "said"),
    [
        (HeadSettings(kind="best"), (9,), "head.kind is 'best'. It must be one of auto, linear, pool, conv, tokens"),
        (HeadSettings(kind="pool"), (9,), "A pool head needs rows of shape"),
        (HeadSettings(kind="tokens"), (9,), "A tokens head needs rows of shape"),
        (HeadSettings(kind="linear"), ("tokens", 4), "A linear head needs rows of one size"),
        (HeadSettings(kind="tokens", token="mean"), ("tokens", 4), "only with a mask"),
        (HeadSettings(kind="linear", channels=4), (9,), "head.channels has no effect on a head of kind linear"),
        (HeadSettings(layers=2), (9,), "head.layers has no effect on a head of kind linear"),
        (HeadSettings(kind="conv", layers=0), (9, 9, 9), "must be whole numbers from 1"),
        (HeadSettings(dropout=1.0), (9,), "head.dropout is 1.0"),
        (HeadSettings(token="last"), (9,), "head.token is 'last'"),
    ],
)
def test_heads_that_do_not_suit(settings: HeadSettings, activation: tuple[int | str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        make_head(settings, Activation(shape=activation, features_last=len(activation) < 3), 5)


def test_where_features_lie_is_told_by_what_is_done_with_them() -> None:
    from training.cuts import captured_with, places_of

    for model, shape, wanted in (
        (zoo.SensorNet(), (6, 64), {"blocks.0": False, "blocks.1": False}),
        (zoo.VisionTransformer(depth=1), (3, 16, 16), {"patches": False, "blocks.0.attn": True}),
        (zoo.LeNet5(), (1, 28, 28), {"conv1": False, "conv2": False}),
    ):
        places = places_of(captured_with(model, torch.randn(1, *shape))[1])
        flow = places.flow
        found = {c.name: features_last(flow.program, flow.crossing(c.position)[-1]) for c in places.cuts}
        assert {name: found[name] for name in wanted} == wanted
