"""The model card of a bundle: what it is for, how good it is, what it was made from, and what nobody promises.

After Mitchell et al., "Model Cards for Model Reporting" (2019). Everything in it follows from the manifest and the
evaluation, except for two texts that a recipe may give (`card.use`, `card.limits`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from calibration import card_figures as figures
from common.bundle import Bundle


def model_card(bundle: Bundle, result: Mapping[str, Any]) -> str:
    """Markdown for the bundle's `README.md`, from its manifest and its evaluation."""
    manifest = bundle.manifest
    recipe = _recipe(bundle)
    sections = [
        f"# {recipe.get('title') or manifest.name}\n",
        f"Bundle `{manifest.name}`, digest `{bundle.digest}`.\n",
        _use(bundle),
        _network(bundle),
        _points(bundle),
        _data(bundle, result),
        figures.accuracy(result),
        figures.guarantees(result),
        _unmet(bundle),
        figures.probabilities(result),
        figures.exits_in_hindsight(result),
        figures.baselines(result),
        figures.time(result),
        figures.bytes_forwarded(result),
        _limits(bundle, result),
        _origin(bundle, result),
    ]
    return "\n".join(section for section in sections if section)


def _use(bundle: Bundle) -> str:
    manifest, given = bundle.manifest, _recipe(bundle).get("card") or {}
    dataset = _dataset(bundle)
    rows = f"rows like those of {dataset}" if dataset else "rows like those that it was trained on"
    lines = [
        "## Intended use\n",
        given.get("use")
        or f"Tells {len(manifest.classes)} classes apart in {rows}, on one machine or split over several that offramp "
        "serves it from.",
        "",
        "It gives one of its classes to every input, also to one that belongs to none of them. Anything that matters "
        "for people's lives, rights or safety needs an evaluation of its own on data from the place of use.",
    ]
    return "\n".join(lines) + "\n"


def _network(bundle: Bundle) -> str:
    manifest = bundle.manifest
    inputs = ", ".join(
        f"`{name}` {manifest.tensors[name].dtype} {list(manifest.tensors[name].shape)}" for name in manifest.inputs
    )
    shown = ", ".join(manifest.classes[:20]) + (", ..." if len(manifest.classes) > 20 else "")
    lines = [
        "## Network\n",
        f"Takes {inputs}; tells {len(manifest.classes)} classes apart: {shown}.\n",
        "| stage | exit | parameters | MFLOPs per row | crosses the cut behind it |",
        "|---|---|---|---|---|",
    ]
    for number, stage in enumerate(manifest.stages):
        crossing = "-"
        if number < len(manifest.cuts):
            crossing = ", ".join(
                f"`{how.name}` {list(manifest.tensors[how.name].shape)} {how.codec} + {how.compression}"
                for how in manifest.cuts[number]
            )
        leave = "-" if stage.exit is None else str(stage.exit)
        lines.append(f"| {number} | {leave} | {stage.parameters:,} | {stage.flops / 1e6:.2f} | {crossing} |")
    return "\n".join(lines) + "\n"


def _points(bundle: Bundle) -> str:
    lines = [
        "## Operating points\n",
        "| operating point | criterion | exits that answer together | thresholds |",
        "|---|---|---|---|",
    ]
    for name, point in bundle.manifest.operating_points.items():
        thresholds = ", ".join("never" if math.isnan(t) else f"{t:g}" for t in point.thresholds)
        criterion = f"{point.criterion}{' (fitted)' if point.gates else ''}"
        lines.append(f"| `{name}` | {criterion} | {point.combine} | {thresholds} |")
    return "\n".join(lines) + "\n"


def _size(size: int | float) -> str:
    """Rows, or a share of them, as `data.DataSettings` has it."""
    return f"{size:,}" if isinstance(size, int) else f"{100 * size:g} %"


def _unmet(bundle: Bundle) -> str:
    """The promises that were asked for and could not be shown."""
    papers = {name: point.guarantee for name, point in bundle.manifest.operating_points.items()}
    unmet = {name: paper["statement"] for name, paper in papers.items() if paper and not paper.get("certified")}
    if not unmet:
        return ""
    lines = [f"- `{name}`: {statement}" for name, statement in unmet.items()]
    return "\n".join(["## Asked for and not guaranteed\n", *lines]) + "\n"


def _data(bundle: Bundle, result: Mapping[str, Any]) -> str:
    data = _recipe(bundle).get("data") or {}
    known = bundle.manifest.provenance.get("data") or {}
    uses = {
        "validation": "chose the epoch",
        "tune": "fitted temperatures, codec ranges and all else that calibration fits, and chose thresholds",
        "certify": "certified what is certified and measured every operating point",
        "calibration": "certified what is certified and measured every operating point",
    }
    sizes = {key: data[key] for key in uses if data.get(key) is not None}
    parts = [f"{_size(size)} {uses[key]}" for key, size in sizes.items()]
    total = f" of {known['train_rows']:,} rows" if "train_rows" in known else ""
    lines = ["## Data\n"]
    if data:
        lines.append(f"Data set `{_dataset(bundle)}`. The train part{total}: {', '.join(parts)}, the rest trained.")
    lines.append(f"The {result['n']:,} rows of the {result['split']} split gave the figures below and chose nothing.")
    return "\n".join(lines) + "\n"


def _limits(bundle: Bundle, result: Mapping[str, Any]) -> str:
    given = _recipe(bundle).get("card") or {}
    configuration = result["configuration"]
    certified = sorted(result.get("guarantees", {}))
    promise = (
        f"What {', '.join(f'`{name}`' for name in certified)} promises holds in the mean over rows like those of the "
        "certify split, and for nothing else."
        if certified
        else "No operating point carries a certificate."
    )
    lines = [
        "## Limits, and what is not guaranteed\n",
        *([str(given["limits"]), ""] if given.get("limits") else []),
        f"- {promise} The other figures are measurements on one split, with intervals for rows like these.",
        "- Nothing is known about single inputs, classes or groups of people, nor about other sensors and places.",
        "- Inputs made to mislead it, or to take the slow way through every stage, were not tried.",
        "- An answer marked `degraded` comes from an exit that did not accept it, and is right less often.",
        f"- Accuracy was measured on {configuration['runtime']} in {configuration['precision']}. "
        "Times belong to the machine that measured them; the ratios carry further, though not to every processor.",
        "- Activations that cross a cut can give away the input. They are coded, not encrypted.",
    ]
    return "\n".join(lines) + "\n"


def _origin(bundle: Bundle, result: Mapping[str, Any]) -> str:
    provenance = bundle.manifest.provenance
    lines = ["## Origin\n"]
    if "recipe_sha256" in provenance:
        lines.append(f"Recipe sha256 `{provenance['recipe_sha256']}`; its content is in `manifest.json`.\n")
    versions = provenance.get("versions", {})
    if versions:
        lines.append("Made with " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".\n")
    lines.append(f"Figures: `evaluation.json`, digest `{result['digest']}`.")
    return "\n".join(lines) + "\n"


def _recipe(bundle: Bundle) -> Mapping[str, Any]:
    recipe = bundle.manifest.provenance.get("recipe")
    return recipe if isinstance(recipe, dict) else {}


def _dataset(bundle: Bundle) -> str:
    return str((_recipe(bundle).get("data") or {}).get("dataset", ""))
