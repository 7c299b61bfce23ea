from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from calibration.datasets import Examples, Splits, divide, load_train
from calibration.settings import DataSettings, parse_section
from common.errors import ConfigError
from common.manifest import TensorSpec
from tests.synthetic import recipe
from tests.training.nets import skipping, small
from training import keep
from training.history import History
from training.keep import keep_as_asked
from training.methods import METHODS, DistilledTraining, ExitsOnlyTraining, LayerWiseTraining, MixedTraining
from training.network import MultiExitNetwork, StagePart
from training.placement import Placement
from training.recipe import Recipe
from training.settings import TrainingSettings
from training.train import train

Snapshot = dict[str, Tensor]


@pytest.fixture(scope="module")
def splits(data: Path) -> Splits:
    settings = DataSettings(**recipe()["data"])
    return divide(load_train(settings, data), settings)


class _Watching:
    """Keeps the network's state after every epoch."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.states: list[Snapshot] = []

    def advance(self, steps: int = 1) -> None:
        pass

    def line(self, text: str) -> None:
        if text.startswith("epoch"):
            self.states.append({name: value.clone() for name, value in self.network.state_dict().items()})


def _run(network: MultiExitNetwork, splits: Splits, settings: TrainingSettings) -> tuple[History, list[Snapshot]]:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    watching = _Watching(network)
    history = train(network, splits.train, splits.validation, settings, threads=1, report=watching)
    assert all(parameter.requires_grad for parameter in network.parameters())  # as it was
    return history, [before, *watching.states]


def _changed(before: Snapshot, after: Snapshot) -> set[str]:
    """Which parts of a network changed: "bodies.0", "heads.2"."""
    return {".".join(name.split(".")[:2]) for name, value in before.items() if not torch.equal(value, after[name])}


def _given(kind: type[TrainingSettings], **changes: Any) -> TrainingSettings:
    return kind(**{"epochs": 1, "batch_size": 50, "learning_rate": 0.02, **changes})


def test_layer_wise_leaves_what_lies_before(splits: Splits) -> None:
    network = skipping()
    history, states = _run(network, splits, _given(LayerWiseTraining))
    assert [epoch.phase for epoch in history.epochs] == ["exit 0", "exit 1", "exit 2"]
    changed = [_changed(*pair) for pair in pairwise(states)]
    assert changed == [{"bodies.0", "heads.0"}, {"bodies.1", "bodies.2", "heads.2"}, {"heads.3"}]
    assert history.best.number == 3


def test_exits_only_freezes_the_backbone_and_its_statistics(splits: Splits) -> None:
    network = skipping()
    (image,) = network.example(9)
    last = network(image)[-1]
    history, states = _run(network, splits, _given(ExitsOnlyTraining, epochs=2))
    assert [epoch.phase for epoch in history.epochs] == ["exits", "exits"]
    assert _changed(states[0], states[-1]) == {"heads.0", "heads.2"}
    assert torch.equal(network(image)[-1], last)
    accuracies = [epoch.accuracy[-1] for epoch in history.epochs]
    assert accuracies[0] == accuracies[1]
    distilled, _ = _run(skipping(), splits, _given(ExitsOnlyTraining, epochs=2, distillation=3.0))
    assert distilled.best.losses != history.best.losses


def test_exits_only_trains_the_backbone_first_where_asked(splits: Splits) -> None:
    history, states = _run(skipping(), splits, _given(ExitsOnlyTraining, backbone_epochs=1))
    assert [epoch.phase for epoch in history.epochs] == ["backbone", "exits"]
    assert _changed(states[0], states[1]) == {"bodies.0", "bodies.1", "bodies.2", "heads.3"}
    assert _changed(states[1], states[2]) == {"heads.0", "heads.2"}


def test_mixed_is_the_backbone_then_everything(splits: Splits) -> None:
    history, states = _run(small(), splits, _given(MixedTraining, backbone_epochs=2, exit_weights="ramp"))
    assert [epoch.phase for epoch in history.epochs] == ["backbone", "backbone", "joint"]
    assert _changed(states[0], states[2]) == {"bodies.0", "bodies.1", "heads.1"}
    assert _changed(states[2], states[3]) == {"bodies.0", "bodies.1", "heads.0", "heads.1"}


def test_the_best_epoch_of_a_phase_is_where_the_next_begins(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    import training.train as module

    losses, begins = iter([3.0, 1.0, 2.0, 5.0]), []
    measure, make, network = module.validate, module.make_optimizer, small()

    def begin(*args: Any) -> Any:
        begins.append({name: value.clone() for name, value in network.state_dict().items()})
        return make(*args)

    monkeypatch.setattr(module, "validate", lambda *args: replace(measure(*args), loss=next(losses)))
    monkeypatch.setattr(module, "make_optimizer", begin)
    history, states = _run(network, splits, _given(MixedTraining, backbone_epochs=3))
    assert not _changed(begins[1], states[2]) and _changed(begins[1], states[3])
    assert history.best == history.epochs[-1]


def test_distilled_changes_what_is_learnt(splits: Splits) -> None:
    torch.manual_seed(0)
    plain, _ = _run(small(), splits, _given(METHODS["joint"]))
    torch.manual_seed(0)
    taught, _ = _run(small(), splits, _given(DistilledTraining, distillation=2.0, distillation_temperature=3.0))
    assert taught.best.losses != plain.best.losses


def test_what_is_shared_with_a_frozen_part_stays(splits: Splits) -> None:
    """Two stages share a layer; layer by layer, the second stage must not change what the first one does."""
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    stages = [
        StagePart(body=shared, reads=("x",), writes=("a",), head=nn.Linear(6, 3), head_reads=("a",)),
        StagePart(
            body=nn.Sequential(nn.ReLU(), shared), reads=("a",), writes=("b",), head=nn.Linear(6, 3), head_reads=("b",)
        ),
    ]
    network = MultiExitNetwork(stages, inputs=[TensorSpec(name="x", dtype="float32", shape=(6,))], classes=list("abc"))
    x = torch.randn(60, 6)
    rows = Examples(inputs={"x": x.numpy()}, labels_N=x[:, :3].argmax(1).numpy(), sha256={})
    splits = Splits(train=rows, validation=rows, tune=rows, certify=rows)
    _, states = _run(network, splits, _given(LayerWiseTraining))
    assert _changed(states[1], states[2]) == {"heads.1"}


@pytest.mark.parametrize("name", ["exits-only", "distilled"])
def test_a_way_that_needs_an_early_exit(name: str, splits: Splits) -> None:
    with pytest.raises(ConfigError, match=f"training.recipe is {name}. The network has no ea"):
        _run(_single(), splits, _given(METHODS[name]))


@pytest.mark.parametrize(("name", "keys"), [("joint", {}), ("layer-wise", {}), ("mixed", {"backbone_epochs": 1})])
def test_a_network_without_early_exits_trains_too(name: str, keys: dict[str, Any], splits: Splits) -> None:
    history, _ = _run(_single(), splits, _given(METHODS[name], **keys))
    assert len(history.best.accuracy) == 1


def test_nothing_to_train_is_said(splits: Splits) -> None:
    network = small().requires_grad_(False)
    with pytest.raises(ConfigError, match="There is nothing to train in phase joint"):
        train(network, splits.train, splits.validation, _given(METHODS["joint"]), threads=1, report=_Watching(network))


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"recipe": "joined"}, "training.recipe is 'joined'. It must be one of joint, layer-wise, exits-only, "),
        ({"recipe": 3}, "training.recipe is 3. It must be one of joint"),
        ({"recipe": "mixed"}, "training.backbone_epochs is missing."),
        ({"recipe": "mixed", "backbone_epochs": 0}, "training.backbone_epochs is 0."),
        ({"distillation": 0.5}, "training.distillation has no effect with recipe joint. It belongs to exits-only, dis"),
        ({"recipe": "layer-wise", "exit_weights": "equal"}, "training.exit_weights has no effect with recipe layer-wi"),
        ({"backbone_epochs": 3}, "training.backbone_epochs has no effect with recipe joint. It belongs to exits-only"),
        ({"momentum": 0.9}, "training.momentum is 0.9. It has no effect unless optimizer is sgd."),
        ({"optimizer": "sgd", "momentum": 1.0}, "training.momentum is 1.0."),
        ({"recipe": "exits-only", "distillation_temperature": 2.0}, "It has no effect without distillation."),
        ({"exit_weights": "early"}, "training.exit_weights is 'early'. It must be equal, heavier-early, lighter-early"),
        ({"augment": "flips"}, "training.augment is 'flips'. It must be crop-flip, or keys"),
        ({"augment": {"crops": 2}}, "training.augment.crops is not a known key. Did you mean crop?"),
        ({"epohcs": 2}, "training.epohcs is not a known key. Did you mean epochs?"),
    ],
)
def test_a_wrong_section_is_one_sentence(training: dict[str, Any], said: str) -> None:
    document = recipe() | {"model": "b-lenet", "training": {"epochs": 1} | training}
    with pytest.raises(ConfigError) as caught:
        parse_section(Recipe, document, "r.yaml")
    assert str(caught.value).startswith("r.yaml: training") and said in str(caught.value)
    assert str(caught.value)[-1] in ".?" and "\n" not in str(caught.value)


def test_an_empty_section_is_told_what_it_may_hold() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_section(Recipe, recipe() | {"model": "b-lenet", "training": None}, "r.yaml")
    said = "r.yaml: training is empty. It must hold keys and values. Some keys: recipe, seed, epochs, batch_size."
    assert str(caught.value) == said


@pytest.mark.parametrize("sections", [{}, {"training": {}}, {"training": {"epochs": 20}}])
def test_a_recipe_may_leave_its_training_out(sections: dict[str, Any]) -> None:
    recipe_ = parse_section(Recipe, {"name": "x", "model": "b-lenet", "data": {"dataset": "./x.npz"}} | sections, "r")
    assert recipe_.training.recipe == "joint" and recipe_.training.epochs == 20
    assert recipe_.training.batch_rows(1000) == 62


@pytest.mark.parametrize("name", list(METHODS))
def test_greedy_placement_takes_what_any_way_has_trained(name: str, splits: Splits, data: Path) -> None:
    network = skipping()
    keys = {"backbone_epochs": 1} if name == "mixed" else {}
    _run(network, splits, _given(METHODS[name], learning_rate=0.01, **keys))
    document = recipe(calibration={"target_drop": 0.5}) | {
        "model": "b-lenet",
        "exits": {"keep": "greedy"},
        "training": {"recipe": name, "epochs": 1, **keys},
    }
    lines: list[str] = []
    asked = parse_section(Recipe, document, "r.yaml")
    kept, _ = keep_as_asked(network, asked, load_train(asked.data, data), lines.append)
    assert lines[0].startswith("kept exits 0, 2 of 0 to 2: ")
    (image,) = network.example(4)
    whole = network(image)
    assert all(torch.equal(one, whole[number]) for one, number in zip(kept(image), (0, 2), strict=True))


@pytest.mark.parametrize(
    ("point", "stay", "left"),
    [
        ({"thresholds": [0.5, 0.9]}, (0, 2), {"thresholds": [0.5]}),
        ({"thresholds": [None, 0.9]}, (1, 2), {"thresholds": [0.9]}),
        ({"budget": 0.9}, (0, 2), {"budget": 0.9}),
        ({"budget": 0.9}, (2,), None),
    ],
)
def test_operating_points_can_be_had_with_the_exits_that_stay(
    point: dict[str, Any],
    stay: tuple[int, ...],
    left: dict[str, Any] | None,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keep, "place_greedily", lambda *_, **__: Placement(kept=stay, mean_flops=1.0, accuracy=1.0))
    document = recipe(calibration={"points": [{"name": "p", **point}]}) | {
        "model": "b-lenet",
        "exits": {"keep": "greedy"},
    }
    asked = parse_section(Recipe, document, "r.yaml")
    lines: list[str] = []
    kept, made = keep_as_asked(skipping(), asked, load_train(asked.data, data), lines.append)
    if left is None:
        assert len(kept.exits) == 3 and made == asked
        assert lines[0].startswith("kept all exits, also those that do not pay. Without them: calibration.points: 'p'")
        return
    assert len(kept.exits) == len(stay)
    assert made.calibration.model_dump()["points"] == [{"name": "p", **left}]


def test_what_learns_nothing_is_said(splits: Splits) -> None:
    network = b_like()
    lines: list[str] = []
    watching = _Watching(network)
    watching.line = lines.append  # type: ignore[method-assign]
    train(network, splits.train, splits.validation, _given(LayerWiseTraining), threads=1, report=watching)
    said = [line for line in lines if "learn nothing" in line]
    assert said == [
        "note: 2 parameters learn nothing in phase exit 0, such as bodies.0.neck.weight: "
        "none of its exits depends on them"
    ]


class Forked(nn.Module):
    """A body whose exit does not see what crosses the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.neck = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        wide = self.trunk(image.to(torch.float32) / 255)
        return wide, self.neck(wide)


def b_like() -> MultiExitNetwork:
    """Two stages; the first exit reads the tensor in front of the bottleneck."""
    stages = [
        StagePart(
            body=Forked(),
            reads=("image",),
            writes=("wide", "narrow"),
            head=nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 10)),
            head_reads=("wide",),
        ),
        StagePart(
            body=nn.Conv2d(2, 4, 3),
            reads=("narrow",),
            writes=("b",),
            head=nn.Sequential(nn.Flatten(), nn.Linear(4 * 16, 10)),
            head_reads=("b",),
        ),
    ]
    return MultiExitNetwork(stages, inputs=small().inputs, classes=small().classes)


def _single() -> MultiExitNetwork:
    whole = small()
    return MultiExitNetwork(
        [StagePart(body=whole.bodies[0], reads=("image",), writes=("a",)), whole.parts[1]],
        inputs=whole.inputs,
        classes=whole.classes,
    )
