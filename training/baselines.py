"""Networks without exits to hold a bundle against, trained on the same rows by the same recipe.

The first is the backbone itself: the same network, of which only the last exit is kept and trained. Beside it stands a
family of static networks: what the recipe lists under `baselines`, else narrower versions of a network of offramp's
own that takes a width. Each is one ONNX file; nothing of them enters the bundle's manifest, so its digest stays.

An exit pays only where no small network without exits is as accurate in less time.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from calibration.baselines import FILE, FOLDER
from calibration.datasets import Data, Examples
from common.errors import ConfigError
from training.export import stage_to_onnx
from training.fit import fit_to_data
from training.fits import check_data
from training.flops import count_flops
from training.methods.joint import JointTraining
from training.models import MODELS, started_model
from training.network import MultiExitNetwork
from training.progress import progress
from training.prune import keep_exits
from training.recipe import BaselineSettings, ExitSettings, HeadSection, ModelSettings, RecipeFile
from training.settings import TrainingSettings
from training.train import total_steps, train

WIDTHS = (0.25, 0.5, 0.75)  # of a network of offramp's own, where the recipe lists nothing
BACKBONE = "backbone"
_EXAMPLE_ROWS = 2


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A network that is to be trained."""

    name: str
    kind: str  # "backbone" or "static"
    source: RecipeFile  # the recipe that makes it, with its own model and training


def planned(source: RecipeFile, data: Data) -> list[Planned]:
    """What a recipe's baselines are; every network is made once, so that a mistake shows before anything is trained.

    Raises:
        ConfigError: when a network cannot be made or does not fit the data, or two have one name.
    """
    recipe = source.recipe
    found = [Planned(name=BACKBONE, kind=BACKBONE, source=_with(source, recipe.model, None))]
    for entry in recipe.baselines if recipe.baselines is not None else _family(recipe.model):
        model = entry.model or recipe.model.model_copy(update={"weights": None})  # they fit the backbone alone
        model = model.model_copy(update={"options": {**model.options, **entry.options}})
        found.append(Planned(name=entry.name, kind="static", source=_with(source, model, entry.epochs)))
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"baselines has two networks of name {name!r}. Each needs a name of its own.")
    for one in found:
        try:
            check_data(_network(one, data.train), data, one.source.recipe.training)
        except ConfigError as error:
            raise ConfigError(f"Baseline {one.name!r}: {error}") from None
    return found


def checkpoint_of(one: Planned, out: Path) -> Path:
    """Where the state of a network's training is kept, beside the bundle that is made."""
    return out.with_name(f"{out.name}.{one.name}.checkpoint.npz")


def add_baselines(data: Data, root: Path, plan: list[Planned], *, kept: Path, threads: int, quiet: bool) -> None:
    """Train every planned network, and put `baselines.json` and the networks into a bundle.

    Args:
        data: the bundle's.
        root: of the bundle.
        plan: what `planned` found.
        kept: where the bundle will lie: a training that is cut off goes on from `checkpoint_of`, which stays until
            the caller has put everything in safety.
        threads: of torch.
        quiet: report nothing.

    Raises:
        BundleError: when a network cannot be written as ONNX.
    """
    (root / FOLDER).mkdir()
    official, splits = data.train, data.splits
    entries = []
    for one in plan:
        network, settings = _network(one, official), one.source.recipe.training
        steps = total_steps(network, splits.train, settings)
        with progress(f"train baseline {one.name}", steps, quiet=quiet) as report:
            report.line(f"baseline {one.name}: the network without exits")
            history = train(
                network,
                splits.train,
                splits.validation,
                settings,
                threads=threads,
                report=report,
                checkpoint=checkpoint_of(one, kept),
            )
        whole, example = _Whole(network).eval(), network.example(_EXAMPLE_ROWS)
        shapes = [network.row_shape(spec.name, tensor) for spec, tensor in zip(network.inputs, example, strict=True)]
        raw = stage_to_onnx(whole, example, one.name, shapes)
        (root / FOLDER / f"{one.name}.onnx").write_bytes(raw)
        entries.append(
            {
                "name": one.name,
                "kind": one.kind,
                "sha256": hashlib.sha256(raw).hexdigest(),
                "flops": _flops(whole, example),
                "parameters": sum(parameter.numel() for parameter in whole.parameters()),
                "model": one.source.recipe.model.model_dump(mode="json"),
                "training": {
                    "seed": settings.seed,
                    "epochs": len(history.epochs),
                    "best_epoch": history.best.number,
                    "validation_accuracy": round(history.best.accuracy[-1], 6),
                },
            }
        )
    trained_on = {"train_sha256": dict(official.sha256), "train_rows": len(official)}
    (root / FILE).write_text(json.dumps({"data": trained_on, "baselines": entries}, indent=1) + "\n")


class _Whole(nn.Module):
    """A network as one stage that answers with the logits of its last exit."""

    def __init__(self, network: MultiExitNetwork) -> None:
        super().__init__()
        self.network = network
        self.reads = [spec.name for spec in network.inputs]
        self.writes = ["logits"]

    def forward(self, *inputs: Tensor) -> tuple[Tensor]:
        """Logits [B, C], as a tuple of one."""
        return (self.network(*inputs)[-1],)


def _network(one: Planned, official: Examples) -> MultiExitNetwork:
    """As its training starts: random, or with the weights that recipe or function bring; only the last exit is left."""
    recipe = one.source.recipe
    torch.manual_seed(recipe.training.seed)
    exits = (recipe.exits or ExitSettings()).model_copy(update={"at": 1, "head": HeadSection(), "heads": None})
    loaded = started_model(one.source)
    if isinstance(loaded.model, MultiExitNetwork):
        return keep_exits(loaded.model, [len(loaded.model.exits) - 1])
    return fit_to_data(loaded, recipe.model, exits, official)


def _family(model: ModelSettings) -> list[BaselineSettings]:
    """Narrower versions of a network of offramp's own."""
    factory = MODELS.get(model.factory)
    if factory is None or "width" not in inspect.signature(factory).parameters:
        return []
    width = float(model.options.get("width", 1.0))
    return [BaselineSettings(name=f"width-{share:g}", options={"width": share * width}) for share in WIDTHS]


def _with(source: RecipeFile, model: ModelSettings, epochs: int | None) -> RecipeFile:
    update = {"model": model, "training": _plain(source.recipe.training, epochs)}
    return replace(source, recipe=source.recipe.model_copy(update=update))


def _plain(settings: TrainingSettings, epochs: int | None) -> JointTraining:
    """The same training of a network with one exit: as many epochs as the bundle's backbone gets."""
    said = TrainingSettings.model_fields.keys() & settings.model_fields_set - {"recipe"}
    common = {name: getattr(settings, name) for name in said}  # a batch size left out still follows from the rows
    alone: int = getattr(settings, "backbone_epochs", 0)
    if settings.recipe == "exits-only":
        common["epochs"] = alone or settings.epochs
    else:
        common["epochs"] = alone + settings.epochs
    return JointTraining(**common | ({} if epochs is None else {"epochs": epochs}))


def _flops(whole: nn.Module, example: tuple[Tensor, ...]) -> int:
    with torch.inference_mode():
        return count_flops(lambda: whole(*example)) // _EXAMPLE_ROWS
