"""Trainings of a table: a base recipe with changes, built once into a work folder that is not committed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from training.build import build

RECIPES = Path(__file__).parent / "recipes"
WORK = Path(__file__).parent.parent / "runs"  # where nothing else is said


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where a table is measured."""

    data_dir: Path | None  # of all data sets, each in a subfolder with its name; None: fetched
    work: Path  # bundles and weights; a finished one is taken as it is
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of a table."""

    name: str  # of the folder
    recipe: Path
    seed: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)  # "training.epochs": 3

    def build(self, settings: Settings) -> Path:
        """The bundle of this training, made unless it is there."""
        out = settings.work / self.name
        if (out / "evaluation.json").exists():
            return out
        build(written(self, settings), out, settings.data_dir, seed=self.seed, threads=settings.threads)
        return out


def written(run: Run, settings: Settings) -> Path:
    """The recipe of a training, with its changes, in the work folder; a file with its factory lies beside it."""
    settings.work.mkdir(parents=True, exist_ok=True)
    document = _changed(run.recipe, run.changes)
    model = document["model"]
    factory = model if isinstance(model, str) else model["factory"]
    if factory.startswith("./"):
        file = factory[2:].partition(":")[0]
        shutil.copyfile(run.recipe.parent / file, settings.work / file)
    recipe = settings.work / f"{run.name}.yaml"
    recipe.write_text(yaml.safe_dump(document, sort_keys=False))
    return recipe


def _changed(recipe: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's document with other values; None leaves a key out."""
    document: dict[str, Any] = yaml.safe_load(recipe.read_text())
    for where, value in changes.items():
        *sections, key = where.split(".")
        section = document
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
        if value is None:
            del section[key]
    return document


def evaluation(bundle: Path) -> dict[str, Any]:
    """What the bundle's evaluation found."""
    document: dict[str, Any] = json.loads((bundle / "evaluation.json").read_text())
    return document
