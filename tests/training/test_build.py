import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from calibration.datasets import Examples
from calibration.served import Served
from common.bundle import Bundle
from common.errors import BundleError, ConfigError
from tests.synthetic import write_tiny
from tests.training.nets import write_recipe
from training import build as module
from training.build import _say_if_nothing_was_learned, build, train_weights
from training.history import Epoch, History
from training.place import placed
from training.progress import progress
from training.recipe import Recipe, load_recipe

SHIPPED = Path(__file__).parents[2] / "recipes" / "mnist-lenet.yaml"


_LEAVES = """
import sys
from pathlib import Path
from training.place import placed

with placed(Path(sys.argv[1])) as root:
    (root / "half").write_text("half")
    if sys.argv[2:]:
        Path(sys.argv[1]).rename(root.parent / "old")
    print("here", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Weights of the tiny recipe, trained once."""
    from tests.training.nets import small
    from training.models import MODELS

    folder = tmp_path_factory.mktemp("weights")
    MODELS["small"] = small
    try:
        train_weights(write_recipe(folder / "recipe.yaml"), folder / "w.npz", data, threads=1, quiet=True)
    finally:
        del MODELS["small"]
    return folder / "w.npz"


@pytest.mark.parametrize(("out", "said"), [(".", "exists and is not a bundle"), ("/", "/ cannot be a bundle")])
def test_a_place_without_a_name(
    tmp_path: Path, data: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, out: str, said: str
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said):
        build(recipe, Path(out), data, weights=weights, threads=1, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize(("right", "told"), [(0.35, True), (0.41, True), (0.6, False)])
def test_a_network_that_learned_nothing_is_told_even_quietly(
    capsys: pytest.CaptureFixture[str], right: float, told: bool
) -> None:
    best = Epoch(number=1, phase="joint", train_loss=1.0, loss=1.0, losses=(1.0, 1.0), accuracy=(0.9, right))
    rows = Examples(
        inputs={"x": np.zeros((100, 1), np.float32)}, labels_N=np.repeat([0, 1, 2], [40, 30, 30]), sha256={}
    )
    with progress("train", 0, quiet=True) as report:
        report.line("nothing special")
        _say_if_nothing_was_learned(History(epochs=(best,), best=best), rows, report)
    said = f"note: the last exit is right on {100 * right:.1f} % of the validation rows, hardly more than"
    err = capsys.readouterr().err
    assert err.startswith(said) if told else err == ""


def test_builds_a_bundle_from_a_recipe(tmp_path: Path, data: Path) -> None:
    recipe, out = write_recipe(tmp_path / "recipe.yaml", epochs=3), tmp_path / "deep" / "out"
    result = build(recipe, out, data, threads=1, quiet=True)
    bundle = Bundle(out)
    bundle.verify()
    assert result["digest"] == bundle.digest
    assert {path.name for path in out.iterdir()} == {
        "manifest.json", "stage0.onnx", "stage1.onnx", "evaluation.json", "evaluation.png",
        "evaluation-reliability.png", "training.png", "README.md",
    }  # fmt: skip
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    provenance = bundle.manifest.provenance
    assert provenance["recipe"]["training"]["epochs"] == 3
    assert provenance["recipe_sha256"] == load_recipe(recipe).sha256
    assert set(provenance["data"]["train_sha256"]) == {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"}
    assert provenance["versions"]["torch"] and len(provenance["training"]["validation_accuracy"]) == 2
    assert result["operating_points"]["full"]["accuracy"] > 0.5
    for path in out.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes() and str(Path.home()).encode() not in path.read_bytes()


def test_packs_weights_that_were_trained_apart(tmp_path: Path, data: Path, weights: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml")
    digests = {build(recipe, tmp_path / name, data, weights=weights, quiet=True)["digest"] for name in ("a", "b")}
    digests.add(build(recipe, tmp_path / "c", data, threads=1, quiet=True)["digest"])
    assert len(digests) == 1  # equal weights, equal bundle, also when trained in one go


def test_a_bundle_that_lies_there_is_replaced_only_by_a_whole_one(
    tmp_path: Path, data: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_tiny(tmp_path / "out")
    old = Bundle(out).digest
    recipe = write_recipe(tmp_path / "recipe.yaml")

    def fails(*args: Any, **kwargs: Any) -> None:
        raise BundleError("calibration failed.")

    with monkeypatch.context() as patch:
        patch.setattr(module, "calibrate", fails)
        with pytest.raises(BundleError, match="calibration failed"):
            build(recipe, out, data, weights=weights, quiet=True)
    assert Bundle(out).digest == old
    assert {path.name for path in tmp_path.iterdir()} == {"out", "recipe.yaml"}
    assert build(recipe, out, data, weights=weights, quiet=True)["digest"] == Bundle(out).digest != old
    assert {path.name for path in tmp_path.iterdir()} == {"out", "recipe.yaml"}


@pytest.mark.parametrize("late", [False, True])
def test_what_a_killed_build_leaves_is_cleared_by_the_next_and_a_running_one_is_not(tmp_path: Path, late: bool) -> None:
    """`late`: killed between taking the old bundle away and putting the new one there."""
    out = write_tiny(tmp_path / "out")
    old = Bundle(out).digest
    (tmp_path / ".out-settings").mkdir()  # looks alike, and is nobody's
    (tmp_path / ".out-abcdefgh").mkdir()
    (tmp_path / ".out-abcdefgh" / "mine").write_text("mine")
    kept = {"out", ".out-settings", ".out-abcdefgh"}
    command = [sys.executable, "-c", _LEAVES, str(out), *(["late"] if late else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"here\n"
        (hidden,) = {path.name for path in tmp_path.iterdir()} - kept
        if not late:
            with placed(out):
                assert (tmp_path / hidden / "new" / "half").exists()
        other.kill()
    assert (tmp_path / hidden).exists()
    with pytest.raises(BundleError), placed(out):
        assert {path.name for path in tmp_path.iterdir()} - kept != {hidden}
        raise BundleError("calibration failed.")
    assert Bundle(out).digest == old if late else out.exists()
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_nothing_else_is_ever_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    for name in ("file", "folder"):
        with pytest.raises(ConfigError, match="exists and is not a bundle"), placed(tmp_path / name):
            pytest.fail("must not start")
    (tmp_path / "empty").mkdir()
    with placed(tmp_path / "empty") as root:
        (root / "x").write_text("new")
    assert (tmp_path / "empty" / "x").read_text() == "new"
    with pytest.raises(ConfigError, match="cannot be written"), placed(tmp_path / "file" / "out"):
        pytest.fail("must not start")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 0}, r"training\.epochs is 0"),
        ({"epochs": "many"}, r"training\.epochs is 'many'"),
        ({"epohcs": 3}, r"training\.epohcs is not a known key\. Did you mean epochs\?"),
        ({"augment": {"degres": 3}}, r"training\.augment\.degres is not a known key\. Did you mean degrees\?"),
        ({"exit_weights": []}, r"training\.exit_weights is \[\]"),
        ({"precision": "float8"}, r"training\.precision is 'float8'"),
        ({"exit_weights": [1.0]}, r"exit_weights has 1 numbers"),
        ({"batch_size": 900}, r"only 400 rows are left"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(tmp_path: Path, data: Path, change: dict[str, Any], said: str) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", **change)
    with pytest.raises(ConfigError, match=said) as caught:
        build(recipe, tmp_path / "out", data, quiet=True)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must hold keys and values"),
        ("- a", "must hold keys and values"),
        ("a: [", "line 1 cannot be read as YAML"),
        ("name: x\nname: y", "line 2 cannot be read as YAML: the key 'name' appears twice"),
        ("name: x\nmodel: 3", r"model is 3\. It must be a name, \./FILE\.py:FUNCTION"),
        ("name: x", "model is missing"),
        ("name: ../x", "name is '../x'"),
    ],
)
def test_text_that_is_no_recipe(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_recipe(path)
    with pytest.raises(ConfigError, match=r"absent\.yaml does not exist"):
        load_recipe(tmp_path / "absent.yaml")


def test_a_wrong_model_is_one_sentence(tmp_path: Path, data: Path) -> None:
    path = write_recipe(tmp_path / "recipe.yaml")
    document = yaml.safe_load(path.read_text())
    for model, said in (
        (
            {"factory": "lenet-9"},
            r"model\.factory is 'lenet-9'\. It must be one of b-lenet, narrow-resnet, resnet, small",
        ),
        ({"factory": "b-lenet", "options": {"depth": 3}}, r"model\.options do not fit b-lenet: .*depth"),
        ({"factory": "b-lenet", "options": {"stem": -1}}, r"model\.options do not fit b-lenet"),
        ({"factory": "b-lenet"}, r"'image' is uint8 \[1, 8, 8\]\. The network takes uint8 \[1, 28, 28\]"),
    ):
        path.write_text(yaml.safe_dump({**document, "model": model}))
        with pytest.raises(ConfigError, match=said):
            build(path, tmp_path / "out", data, quiet=True)
        assert not (tmp_path / "out").exists()


def test_weights_of_losses_that_are_not_one_for_each_exit(tmp_path: Path, data: Path) -> None:
    path = write_recipe(tmp_path / "recipe.yaml")
    document = yaml.safe_load(path.read_text())
    document["training"]["exit_weights"] = [1.0, 1.0, 1.0]
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=r"exit_weights has 3 numbers\. The network has 2 exits"):
        build(path, tmp_path / "out", data, quiet=True)
    assert not (tmp_path / "out").exists()


def test_wrong_weights_are_refused(tmp_path: Path, data: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "pickle.npz", x=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("x")
    for name in ("other", "pickle", "text", "absent"):
        with pytest.raises(ConfigError, match=f"{name}.npz does not hold the weights") as caught:
            build(recipe, tmp_path / "out", data, weights=tmp_path / f"{name}.npz", quiet=True)
        assert "\n" not in str(caught.value)
    weights = tmp_path / "w.npz"
    train_weights(recipe, weights, data, threads=1, quiet=True)
    other = write_recipe(tmp_path / "other.yaml", epochs=3)
    with pytest.raises(ConfigError, match="trained by a recipe whose section 'training' differs"):
        build(other, tmp_path / "out", data, weights=weights, quiet=True)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match=r"must end with \.npz"):
        train_weights(recipe, tmp_path / "weights.pt", data, quiet=True)
    with pytest.raises(ConfigError, match="seed is -1"):
        build(recipe, tmp_path / "out", data, seed=-1, quiet=True)


def test_the_shipped_recipe_is_the_shipped_bundles(shipped: Path = SHIPPED) -> None:
    bundle = Bundle(SHIPPED.parents[1] / "bundles" / "mnist-lenet")
    bundle.verify()
    source = load_recipe(shipped)
    assert bundle.manifest.provenance["recipe_sha256"] == source.sha256
    assert Recipe.model_validate(bundle.manifest.provenance["recipe"]) == source.recipe
    evaluation = json.loads((bundle.root / "evaluation.json").read_text())
    assert evaluation["digest"] == bundle.digest
    assert bundle.digest in (bundle.root / "README.md").read_text()


def test_the_shipped_bundle_keeps_its_word() -> None:
    """Accuracy and exit rates on the official test split, as recorded; the examples agree with them."""
    root = SHIPPED.parents[1]
    evaluation = json.loads((root / "bundles" / "mnist-lenet" / "evaluation.json").read_text())
    default = evaluation["operating_points"]["default"]
    assert evaluation["n"] == 10_000 and evaluation["exits"][-1]["accuracy"] >= 0.994
    assert default["drop"] <= 0.001 and default["exit_rates"][0] >= 0.94 and min(default["exit_rates"]) > 0
    assert all(entry["coded"] < entry["input_zlib"] for entry in evaluation["forwarded_bytes"])

    paths = sorted((root / "examples" / "mnist").glob("*.png"))
    images = np.stack([np.asarray(Image.open(path)) for path in paths])[:, None]
    labels = np.array([int(path.stem.split("-")[1]) for path in paths])
    assert [int(path.stem.split("-")[0]) for path in paths] == list(range(0, 39 * 256, 39))
    bundle = Bundle(root / "bundles" / "mnist-lenet")
    logits = Served(bundle).says(Examples(inputs={"image": images}, labels_N=labels, sha256={})).logits
    accuracy = [(one.argmax(axis=1) == labels).mean() for one in logits]
    assert min(accuracy) >= 0.98 and accuracy[-1] >= 0.99
