"""The proof that a network cut into stages equals the whole: |a - b| <= 1e-4 * max(1, max |a|)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from calibration.datasets import Examples
from calibration.served import Served
from calibration.settings import CutSettings
from common.bundle import Bundle
from common.errors import BundleError
from common.manifest import TensorSpec
from tests.training.nets import shake, shaken_lenet, skipping
from training.export import export, stage_to_onnx
from training.network import MultiExitNetwork, StagePart

UNCODED = CutSettings(codec="raw", compression="none")


class Uncut(nn.Module):
    """A network as one piece."""

    def __init__(self, network: MultiExitNetwork) -> None:
        super().__init__()
        self.network = network
        self.reads = tuple(spec.name for spec in network.inputs)
        self.writes = tuple(network.logits_name(stage) for stage in network.exits)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.network(*inputs)


@dataclass(frozen=True)
class Exported:
    network: MultiExitNetwork
    bundle: Bundle
    uncut: bytes


@pytest.fixture(scope="module", params=[shaken_lenet, skipping], ids=["b-lenet", "skip"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    make: Callable[[], MultiExitNetwork] = request.param
    network, root = make(), tmp_path_factory.mktemp("exported")
    export(network, root, name="net", cuts=UNCODED, provenance={})
    return Exported(network, Bundle(root), stage_to_onnx(Uncut(network).eval(), network.example(), "whole"))


def images(network: MultiExitNetwork, rows: int) -> np.ndarray:
    rng = np.random.default_rng(rows)
    return rng.integers(0, 256, (rows, *network.inputs[0].shape), dtype=np.uint8)


def assert_equal(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(wanted, found, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1e-4 * max(1.0, np.abs(a).max())


def chained(bundle: Bundle, x: np.ndarray) -> list[np.ndarray]:
    return list(
        Served(bundle).says(Examples(inputs={"image": x}, labels_N=np.zeros(len(x), np.int64), sha256={})).logits
    )


@pytest.mark.parametrize("rows", [1, 2, 5, 33])
def test_chained_stages_equal_the_uncut_network_in_torch(exported: Exported, rows: int) -> None:
    x = images(exported.network, rows)
    with torch.inference_mode():
        wanted = [logits.numpy() for logits in exported.network(torch.from_numpy(x))]
    assert max(np.abs(one).max() for one in wanted) > 0.1
    assert_equal(chained(exported.bundle, x), wanted)


@pytest.mark.parametrize("rows", [1, 33])
def test_chained_stages_equal_the_uncut_network_on_the_same_runtime(exported: Exported, rows: int) -> None:
    x = images(exported.network, rows)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(exported.uncut, options, providers=["CPUExecutionProvider"])
    assert_equal(chained(exported.bundle, x), session.run(None, {"image": x}))


def test_a_row_does_not_depend_on_its_batch(exported: Exported) -> None:
    x = images(exported.network, 8)
    together, rows = chained(exported.bundle, x), [chained(exported.bundle, x[i : i + 1]) for i in range(8)]
    alone = [np.concatenate(parts) for parts in zip(*rows, strict=True)]
    assert_equal(alone, together)


def test_files_are_lean_and_nameless(exported: Exported) -> None:
    exported.bundle.verify()
    for number, stage in enumerate(exported.bundle.manifest.stages):
        raw = exported.bundle.stage_bytes(number)
        model = onnx.load_from_string(raw)
        assert {node.op_type for node in model.graph.node}.isdisjoint({"BatchNormalization", "Identity", "Dropout"})
        assert [i.name for i in model.graph.input] == list(stage.reads)
        assert [o.name for o in model.graph.output] == list(stage.writes)
        dims = [v.type.tensor_type.shape.dim[0].dim_param for v in (*model.graph.input, *model.graph.output)]
        assert set(dims) == {"batch"}
        assert b".py" not in raw and b"/site-packages" not in raw and str(Path.cwd()).encode() not in raw
        held = sum(np.prod(weight.dims) for weight in model.graph.initializer)
        assert held <= stage.parameters + 16  # weights of this stage alone


def test_the_manifest_counts_work_and_weights(exported: Exported) -> None:
    stages = exported.bundle.manifest.stages
    assert sum(s.parameters for s in stages) == sum(p.numel() for p in exported.network.parameters())
    assert all(s.flops > 0 for s in stages if s.exit is not None)
    if len(stages) == 3:  # B-LeNet, stage 0: two convolutions, the bottleneck, the classifier; 2 FLOPs per product
        products = 144 * 25 * 16 + 36 * 9 * 16 * 64 + 36 * 64 * 6 + 2304 * 10
        assert stages[0].flops == 2 * products


def test_cuts_code_activations_and_nothing_else_and_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        torch.manual_seed(1)
        stages = [
            StagePart(body=nn.Linear(3, 4), reads=("x",), writes=("a",), head=nn.Linear(4, 2), head_reads=("a",)),
            StagePart(body=Late(), reads=("a", "n"), writes=("b",), head=nn.Linear(6, 2), head_reads=("b",)),
        ]
        inputs = [TensorSpec(name="x", dtype="float32", shape=(3,)), TensorSpec(name="n", dtype="int64", shape=(2,))]
        network = MultiExitNetwork(stages, inputs=inputs, classes=["no", "yes"])
        digests.append(export(network, tmp_path / name, name="net", cuts=CutSettings(), provenance={}))
    (cut,) = Bundle(tmp_path / "one").manifest.cuts
    assert [(how.name, how.codec, how.compression) for how in cut] == [("n", "raw", "none"), ("a", "u8", "zstd")]
    assert digests[0] == digests[1]


class Late(nn.Module):
    def forward(self, a_BD: Tensor, n_BD: Tensor) -> Tensor:
        return torch.cat([a_BD, n_BD.to(torch.float32)], dim=1)


def _one_stage(body: nn.Module) -> MultiExitNetwork:
    part = StagePart(body=body, reads=("x",), writes=("a",), head=nn.Linear(3, 2), head_reads=("a",))
    return MultiExitNetwork([part], inputs=[TensorSpec(name="x", dtype="float32", shape=(3,))], classes=["a", "b"])


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class Stubborn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.relu(x))


def test_a_batch_norm_that_follows_no_convolution_is_packed_as_it_is(tmp_path: Path) -> None:
    network = shake(_one_stage(Stubborn()))
    export(network, tmp_path, name="net", cuts=UNCODED, provenance={})
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    with torch.inference_mode():
        wanted = [logits.numpy() for logits in network(torch.from_numpy(x))]
    examples = Examples(inputs={"x": x}, labels_N=np.zeros(5, np.int64), sha256={})
    assert_equal(list(Served(Bundle(tmp_path)).says(examples).logits), wanted)


def test_what_cannot_be_packed_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"stage0 cannot be written as ONNX: .+") as caught:
        export(_one_stage(Branching()), tmp_path, name="net", cuts=UNCODED, provenance={})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "manifest.json").exists()
