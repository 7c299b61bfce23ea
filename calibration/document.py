"""The manifest as a document that can be changed, and what a bundle remembers of its recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from calibration.settings import Section, parse_section
from common.bundle import MANIFEST, Bundle
from common.errors import BundleError, ConfigError
from common.manifest import Combination, CutTensor, Manifest, Range
from common.rule import Rule


def load_document(bundle: Bundle) -> dict[str, Any]:
    """The decoded manifest.json of a bundle that was checked."""
    document: dict[str, Any] = json.loads((bundle.root / MANIFEST).read_bytes())
    return document


def recipe_section(bundle: Bundle, name: str, kind: type[Section]) -> Section:
    """A section of the recipe that the bundle was made by.

    Raises:
        BundleError: when the bundle does not carry one.
        ConfigError: when the section is wrong.
    """
    recipe = bundle.manifest.provenance.get("recipe")
    section = recipe.get(name) if isinstance(recipe, dict) else None
    if section is None:
        raise BundleError(f"{bundle.root} carries no provenance.recipe.{name}: it cannot be calibrated or evaluated.")
    return parse_section(kind, section, f"manifest.json: provenance.recipe.{name}")


def check_same_rows(bundle: Bundle, sha256: Mapping[str, str], wanted: str) -> None:
    """The splits are row numbers: with other files, rows that the network was trained on would be used.

    Args:
        bundle: remembers the files that its network was trained on.
        sha256: of the files at hand.
        wanted: which rows are looked for.

    Raises:
        ConfigError: when the files are others.
    """
    recorded = bundle.manifest.provenance.get("data", {}).get("train_sha256")
    if recorded is not None and recorded != dict(sha256):
        raise ConfigError(
            f"The train files differ from those that the bundle was trained on, so its {wanted} rows are unknown."
        )


def cut_json(codes: Sequence[CutTensor]) -> dict[str, Any]:
    """One entry of `cuts`."""
    return {
        "tensors": [
            {
                "name": how.name,
                "codec": how.codec,
                "compression": how.compression,
                **({} if how.low is None else {"low": _range_json(how.low), "high": _range_json(how.high)}),
            }
            for how in codes
        ]
    }


def write_exits(document: dict[str, Any], manifest: Manifest) -> None:
    """Put temperatures and combinations into a decoded manifest.json."""
    for entry, leave in zip(document["exits"], manifest.exits, strict=True):
        entry["temperature"] = leave.temperature
        entry.pop("combine", None)
        if leave.combine is not None:
            entry["combine"] = combination_json(leave.combine)


def combination_json(combine: Combination | None) -> dict[str, Any] | None:
    """How an exit answers together with those before it."""
    return None if combine is None else {"weights": list(combine.weights), "bias": list(combine.bias)}


def rule_json(rule: Rule) -> dict[str, Any]:
    """What an operating point writes of its rule; what is left at its default is left out."""
    return {
        "criterion": rule.criterion.name,
        **({} if rule.combine == "none" else {"combine": rule.combine}),
        **({"gates": [None if gate is None else asdict(gate) for gate in rule.gates]} if rule.gates else {}),
    }


def write_codes(document: dict[str, Any], manifest: Manifest) -> None:
    """Put how everything travels between tiers into a decoded manifest.json."""
    document["cuts"] = [
        cut_json(cut) | ({"forward": "input"} if number in manifest.input_cuts else {})
        for number, cut in enumerate(manifest.cuts)
    ]
    document["input"].pop("compression", None)
    compressions = {how.compression for how in manifest.input_codes}
    if compressions - {"none"}:
        (document["input"]["compression"],) = compressions


def described(how: CutTensor) -> str:
    """A tensor's code as reports show it."""
    code = how.codec if how.compression == "none" else f"{how.codec} + {how.compression}"
    if isinstance(how.low, tuple) and isinstance(how.high, tuple):
        return f"{how.name} {code} {min(how.low):.4g}..{max(how.high):.4g} per channel"
    return f"{how.name} {code}" + ("" if how.low is None else f" {how.low:.4g}..{how.high:.4g}")


def _range_json(ends: Range | None) -> float | list[float] | None:
    return list(ends) if isinstance(ends, tuple) else ends


def thresholds_json(thresholds: Sequence[float]) -> list[float | None]:
    """Thresholds as the manifest writes them: null never accepts."""
    return [None if math.isnan(threshold) else threshold for threshold in thresholds]
