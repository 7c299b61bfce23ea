"""The model card of a bundle: what it is, how good, and what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.bundle import Bundle


def model_card(bundle: Bundle, result: Mapping[str, Any]) -> str:
    """Markdown for the bundle's `README.md`, from its manifest and its evaluation."""
    manifest = bundle.manifest
    recipe = manifest.provenance.get("recipe", {})
    sections = [
        f"# {recipe.get('title') or manifest.name}\n",
        f"Bundle `{manifest.name}`, digest `{bundle.digest}`.\n",
        _network(bundle),
        _accuracy(result),
        _guarantees(result),
        _bytes(result),
        _latency(result),
        _origin(bundle, result),
    ]
    return "\n".join(section for section in sections if section)


def _network(bundle: Bundle) -> str:
    manifest = bundle.manifest
    inputs = ", ".join(
        f"`{name}` {manifest.tensors[name].dtype} {list(manifest.tensors[name].shape)}" for name in manifest.inputs
    )
    lines = [
        "## Network\n",
        f"Takes {inputs}; tells {len(manifest.classes)} classes apart: {', '.join(manifest.classes)}.\n",
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


def _accuracy(result: Mapping[str, Any]) -> str:
    lines = [
        f"## Accuracy on the {result['n']:,} rows of the {result['split']} split\n",
        "Thresholds and temperatures come from rows of the train split that nothing was trained on; "
        "no test row was used to choose anything.\n",
        "| exit, answering every row | accuracy % |",
        "|---|---|",
        *(f"| {e['exit']} | {100 * e['accuracy']:.2f} |" for e in result["exits"]),
        "",
        "| operating point | accuracy % | points below the last exit | leave per exit % | of these right % | MFLOPs |",
        "|---|---|---|---|---|---|",
    ]
    for name, point in result["operating_points"].items():
        rates = " / ".join(f"{100 * rate:.2f}" for rate in point["exit_rates"])
        among = " / ".join("-" if a is None else f"{100 * a:.2f}" for a in point["exit_accuracy"])
        lines.append(
            f"| `{name}` | {100 * point['accuracy']:.2f} | {100 * point['drop']:.2f} | {rates} | {among} | "
            f"{point['mean_flops'] / 1e6:.2f} |"
        )
    lines.append("\n![accuracy against cost](evaluation.png)")
    return "\n".join(lines) + "\n"


def _guarantees(result: Mapping[str, Any]) -> str:
    if "guarantees" not in result:
        return ""
    lines = [
        "## Guarantees\n",
        "Certified on rows that nothing was fitted on; the mean loss of the test split is shown beside the promise.\n",
        "| operating point | mean loss | at most % | wrong with probability at most | on the test split % |",
        "|---|---|---|---|---|",
    ]
    for name, entry in result["guarantees"].items():
        promise = f"{100 * entry['epsilon']:.6g} | {entry['delta']:g} | {100 * entry['mean_loss']:.2f}"
        lines.append(f"| `{name}` | {entry['risk'].replace('-', ' ')} | {promise} |")
    return "\n".join(lines) + "\n"


def _bytes(result: Mapping[str, Any]) -> str:
    lines = [
        "## Bytes per forwarded row\n",
        "Payload of the rows that operating point `default` forwards, coded one by one, without framing.\n",
        "| cut | coded | as float32 | the input itself | the input, zlib |",
        "|---|---|---|---|---|",
    ]
    for entry in result["forwarded_bytes"]:
        if entry["rows"]:
            sizes = " | ".join(f"{entry[key]:,.0f}" for key in ("coded", "uncoded", "input", "input_zlib"))
            lines.append(f"| {entry['cut']} | {sizes} |")
    return "\n".join(lines) + "\n"


def _latency(result: Mapping[str, Any]) -> str:
    if "latency" not in result:
        return ""
    configuration = result["configuration"]
    lines = [
        "## Time per row\n",
        f"One row at a time on one thread of {configuration['runtime']} ({configuration['precision']}), "
        "computing only; take the ratios, not the absolute times.\n",
        "| | mean us | p50 | p95 | p99 | times faster than without exits |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in result["latency"].items():
        times = " | ".join(f"{entry[key]:.1f}" for key in ("mean_us", "p50_us", "p95_us", "p99_us"))
        lines.append(f"| {name.replace('_', ' ')} | {times} | {entry['speedup']:.2f} |")
    return "\n".join(lines) + "\n"


def _origin(bundle: Bundle, result: Mapping[str, Any]) -> str:
    provenance = bundle.manifest.provenance
    data = provenance.get("recipe", {}).get("data", {})
    lines = ["## Origin\n"]
    if data:
        lines.append(
            f"Data set `{data['dataset']}`: of the train split {data['validation']:,} rows chose the epoch, "
            f"{data['tune']:,} fitted temperatures and codec ranges, {data['calibration']:,} chose thresholds, "
            "the rest trained.\n"
        )
    if "recipe_sha256" in provenance:
        lines.append(f"Recipe sha256 `{provenance['recipe_sha256']}`; its content is in `manifest.json`.\n")
    versions = provenance.get("versions", {})
    if versions:
        lines.append("Made with " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".\n")
    lines.append(f"Figures: `evaluation.json`, digest `{result['digest']}`.")
    return "\n".join(lines) + "\n"
