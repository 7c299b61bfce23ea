"""The proof for exits on any network: stages in a chain equal the whole, in torch and on onnxruntime, both modes."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calibration.served import Served
from calibration.settings import CutSettings
from common.bundle import Bundle
from common.runtimes.runner import zeros
from common.serving.batcher import RunCost
from common.serving.stages import load_stages, warm_up
from tests.training import zoo
from tests.training.nets import shake
from training.add_exits import add_exits
from training.export import _document, export
from training.heads import HeadSettings
from training.network import MultiExitNetwork
from training.proof import chain
from training.resnet import ResNet

UNCODED = CutSettings(codec="raw", compression="none")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of a row
    at: list[str | float]
    head: str | HeadSettings = "auto"


CASES = {
    "lenet": Case(zoo.LeNet5, (1, 28, 28), ["conv1", "conv2"]),
    "resnet-20": Case(lambda: ResNet(widths=(4, 8, 8)), (3, 16, 16), ["groups.1"]),
    "mobilenet-v2": Case(lambda: zoo.MobileNetV2(repeats=2), (3, 32, 32), ["features.3"], "conv"),
    "vision-transformer": Case(lambda: zoo.VisionTransformer(depth=2), (3, 16, 16), [0.5]),
    "sensor-windows": Case(zoo.SensorNet, (6, 64), [0.2, 0.6], HeadSettings(kind="conv", channels=8, cascade=True)),
    "time-first": Case(zoo.TimeFirst, (10, 6), ["enter", "layers.0"]),
    "text-encoder": Case(lambda: zoo.TextEncoder(depth=2), (), ["layers.0"]),
}


@dataclass(frozen=True)
class Cut:
    model: nn.Module
    network: MultiExitNetwork
    shape: tuple[int, ...]

    def inputs(self, rows: int, tokens: int = 16) -> dict[str, Tensor]:
        torch.manual_seed(rows)
        if self.shape:
            return {self.network.inputs[0].name: torch.randn(rows, *self.shape)}
        mask = (torch.arange(tokens) < torch.randint(1, tokens + 1, (rows, 1))).to(torch.int64)
        return {"input_ids": torch.randint(1, 99, (rows, tokens)) * mask, "attention_mask": mask}


def trained(network: MultiExitNetwork, inputs: dict[str, Tensor]) -> None:
    """Let every exit learn a few rows by heart: weights and statistics as training leaves them."""
    labels = torch.arange(64) % len(network.classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    network.train()
    losses = []
    for _ in range(30):
        loss = torch.stack([F.cross_entropy(logits, labels) for logits in network(*inputs.values())]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    network.zero_grad()
    network.eval()


@pytest.fixture(scope="module", params=CASES)
def cut(request: pytest.FixtureRequest) -> Cut:
    case = CASES[request.param]
    torch.manual_seed(0)
    model = shake(case.make())
    example: Tensor | dict[str, Tensor] = torch.randn(1, *case.shape)
    if not case.shape:
        example = {"input_ids": torch.ones(1, 16, dtype=torch.int64), "attention_mask": torch.ones(1, 16).long()}
    network = add_exits(model, example, case.at, head=case.head)
    found = Cut(model, network, case.shape)
    trained(network, found.inputs(64))
    return found


@pytest.fixture(scope="module")
def bundle(cut: Cut, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("bundle")
    export(cut.network, root, name="net", cuts=UNCODED, provenance={})
    return Bundle(root)


def gap(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> float:
    """Relative to the tolerance 1e-4 * max(1, max |a|); at most 1 is equal."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / (1e-4 * max(1.0, np.abs(a).max())))


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_the_chain_equals_the_whole_in_torch(cut: Cut, rows: int) -> None:
    inputs = cut.inputs(rows)
    with torch.inference_mode():
        assert gap(cut.model(**inputs), chain(cut.network, inputs)[-1]) <= 1
        for one, other in zip(cut.network(*inputs.values()), chain(cut.network, inputs), strict=True):
            assert gap(one, other) <= 1


def test_the_weights_are_the_networks_own(cut: Cut) -> None:
    own = {id(p) for p in cut.model.parameters()}
    stages = {id(p) for module in (*cut.network.bodies, cut.network.heads[str(cut.network.exits[-1])]) for p in module.parameters()}  # fmt: skip
    assert stages == own
    assert {id(b) for b in cut.model.buffers()} <= {id(b) for b in cut.network.buffers()}


def test_training_mode_is_the_networks_own(cut: Cut) -> None:
    """Dropout draws the same numbers, batch norm keeps the same statistics, gradients are the same."""
    inputs = cut.inputs(4)
    whole = copy.deepcopy(cut.model).train()
    torch.manual_seed(1)
    wanted = whole(**inputs)
    wanted.square().sum().backward()
    network = copy.deepcopy(cut.network).train()
    bodies = {name: t for body in network.bodies for name, t in _own(body).items()} | _own(
        list(network.heads.values())[-1]
    )
    torch.manual_seed(1)
    live = dict(inputs)
    for stage in range(len(network.parts)):  # without early heads, which draw numbers of their own
        live |= network.run_body(stage, live)
    found = network.run_head(len(network.parts) - 1, live)[network.logits_name(len(network.parts) - 1)]
    found.square().sum().backward()
    assert gap(wanted.detach(), found.detach()) <= 1
    for name, parameter in whole.named_parameters():
        assert parameter.grad is not None and gap(parameter.grad, bodies[name].grad) <= 10, name
    for name, buffer in whole.named_buffers():
        assert gap(buffer, bodies[name]) <= 1, name


def _own(part: nn.Module) -> dict[str, Tensor]:
    tensors = [*part.named_parameters(), *part.named_buffers()]
    return {name.partition("tensors.")[2]: tensor for name, tensor in tensors}


@pytest.mark.parametrize(("rows", "tokens"), [(1, 16), (3, 16), (8, 16), (2, 5)])
def test_the_chain_equals_the_whole_on_onnxruntime(cut: Cut, bundle: Bundle, rows: int, tokens: int) -> None:
    inputs = cut.inputs(rows, tokens)
    with torch.inference_mode():
        wanted = [logits.numpy() for logits in cut.network(*inputs.values())]
        whole = cut.model(**inputs).numpy()
    found = Served(bundle).logits_from(0, {name: tensor.numpy() for name, tensor in inputs.items()})
    assert len(found) == len(wanted)
    assert all(gap(a, b) <= 1 for a, b in zip(wanted, found, strict=True))
    assert gap(whole, found[-1]) <= 1


def test_what_rows_are_filled_up_with_changes_nothing(cut: Cut, bundle: Bundle) -> None:
    if cut.shape:
        assert bundle.manifest.buckets == {}
        return
    assert bundle.manifest.buckets == {"tokens": (8, 16)}  # the example shows the longest row
    inputs = {name: tensor.numpy() for name, tensor in cut.inputs(3, 11).items()}
    filled = {name: np.pad(array, ((0, 0), (0, 5))) for name, array in inputs.items()}
    served = Served(bundle)
    for short, long in zip(served.logits_from(0, inputs), served.logits_from(0, filled), strict=True):
        assert gap(short, long) <= 1


def test_a_tier_starts_with_it(bundle: Bundle) -> None:
    count = len(bundle.manifest.stages)
    runners = load_stages(bundle, start=0, stop=count, runtime="onnxruntime", threads=1)
    warm_up(bundle.manifest, runners, {stage: RunCost() for stage in runners})
    if "attention_mask" in bundle.manifest.inputs:  # its trial rows are not filling alone
        assert zeros(bundle.manifest, 0, 2)["attention_mask"].tolist() == [[1] * 8] * 2


RUN = """
import sys
sys.modules["torch"] = None  # any import of it fails
import numpy as np
from calibration.served import Served
from common.bundle import Bundle
bundle = Bundle(sys.argv[1])
inputs = dict(np.load(sys.argv[2]))
print([logits.tolist() for logits in Served(bundle).logits_from(0, inputs)])
"""


def test_the_stages_run_without_torch(cut: Cut, bundle: Bundle, tmp_path: Path) -> None:
    inputs = {name: tensor.numpy() for name, tensor in cut.inputs(2).items()}
    np.savez(tmp_path / "inputs.npz", **inputs)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(bundle.root), str(tmp_path / "inputs.npz")],
        capture_output=True, text=True, cwd=ROOT, timeout=60, check=True,
    )  # fmt: skip
    found = [np.array(logits) for logits in json.loads(done.stdout)]
    wanted = Served(bundle).logits_from(0, inputs)
    assert all(gap(a, b) <= 1 for a, b in zip(wanted, found, strict=True))


def test_cascaded_heads_send_logits_uncoded_and_no_gradient_back(cut: Cut, bundle: Bundle) -> None:
    if len(cut.network.exits) < 3 or not getattr(cut.network.heads["1"], "cascade", False):
        return
    assert cut.network.crossing(0) == ("blocks.0", "logits0") and cut.network.crossing(1) == ("blocks.1",)
    network = copy.deepcopy(cut.network).train()
    network(*cut.inputs(4).values())[1].sum().backward()
    assert all(parameter.grad is None for parameter in network.heads["0"].parameters())
    assert all(parameter.grad is not None for parameter in network.heads["1"].parameters())
    assert bundle.manifest.stages[1].reads == ("blocks.0", "logits0")
    coding = _document(
        network, dict.fromkeys((*bundle.manifest.tensors,), torch.zeros(1)), [], "net", CutSettings(), {}
    )
    assert [(how["name"], how["codec"]) for how in coding["cuts"][0]["tensors"]] == [
        ("blocks.0", "u8"),
        ("logits0", "raw"),
    ]
