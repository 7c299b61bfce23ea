"""The certificate of an operating point: what is promised, how it was shown, and for which configuration.

It is a JSON document, the field `guarantee` of an operating point; `docs/guarantees.md` describes every key. It
cannot name the bundle's digest, because it is part of what is digested. It names what the digest stands for:
the stage files' hashes, temperatures, the codes of every cut, runtime and precision.

Limits are rounded up, so that what is written never promises more than what was shown.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from calibration.certify import Certified, Rung
from calibration.datasets import Examples
from calibration.document import combination_json, cut_json, recipe_section, rule_json, thresholds_json
from calibration.served import Served
from calibration.settings import DataSettings
from common.rule import Rule

_DIGITS = 6


def certificate(found: Certified, served: Served, *, rule: Rule, tune: Examples, certify: Examples) -> dict[str, Any]:
    """The document for an outcome.

    Args:
        found: what testing the ladder on `certify` gave.
        served: what ran; its manifest holds the codes and temperatures that were used.
        rule: what decides.
        tune: the rows that the ladder was fixed on.
        certify: the rows that it was tested on.
    """
    chosen = found.rungs[found.chosen or 0]
    named = recipe_section(served.bundle, "data", DataSettings).group
    group = None if certify.groups_N is None else named or "group"
    return {
        "certified": found.chosen is not None,
        "statement": statement(found) + (grouped(group) if found.chosen is not None else ""),
        "risk": found.risk.name,
        "loss_range": [found.risk.lowest, 1.0],
        "reference": "the uncut float32 network",
        "epsilon": found.epsilon,
        "delta": found.delta,
        "n": found.rows,
        "certify_sha256": split_sha256(certify),
        "tune_n": len(tune),
        "tune_sha256": split_sha256(tune),
        **({} if group is None else {"group": group}),
        "procedure": "fixed-sequence testing from the safest rung down",
        "test": found.risk.test_name,
        "smallest_epsilon": _up(found.smallest_epsilon),
        "rung": found.chosen,
        "mean_loss": round(chosen.mean_loss, _DIGITS),
        "limit": _up(chosen.limit),
        "configuration": {
            "stages": [stage.sha256 for stage in served.manifest.stages],
            "cuts": [cut_json(cut)["tensors"] for cut in served.manifest.cuts],
            "input_cuts": sorted(served.manifest.input_cuts),
            "temperatures": [leave.temperature for leave in served.manifest.exits],
            **rule_json(rule),
            **_combined(served, rule),
            "thresholds": thresholds_json(chosen.thresholds),
            **served.configuration(),
        },
        "ladder": [_rung_json(rung) for rung in found.rungs],
    }


def statement(found: Certified) -> str:
    """What is promised, or why nothing is, in words."""
    if found.chosen is None:
        return (
            f"Nothing is promised: epsilon {found.epsilon:g} could not be shown with delta {found.delta:g} on "
            f"{found.rows} rows. Without a single loss they could show {_up(found.smallest_epsilon):g}; with every row "
            f"at the last exit they show {_up(found.rungs[0].limit):g}. Every row goes to the last exit."
        )
    share = f"{100 * found.epsilon:.6g} %"
    what = {
        "disagreement": f"at most {share} of the answers differ from those of the uncut float32 network",
        "accuracy-gap": f"the accuracy lies at most {share} of the rows below that of the uncut float32 network",
    }[found.risk.name]
    return (
        f"On rows like those of the certify split, {what}. "
        f"Over the draw of that split this is wrong with probability at most {found.delta:g}."
    )


def grouped(group: str | None) -> str:
    """What must be added where rows were kept together by a column."""
    if group is None:
        return ""
    return (
        f" It takes rows as independent, and rows of equal {group} are not: the fewer values of {group} there are, the "
        "more often it is wrong."
    )


def point_json(rung: Rung, guarantee: Mapping[str, Any], rows: int, rule: Rule) -> dict[str, Any]:
    """An operating point for a rung, without its configuration."""
    return {
        **rule_json(rule),
        "thresholds": thresholds_json(rung.thresholds),
        "measured": measured(_rung_json(rung), rows),
        "guarantee": dict(guarantee),
    }


def _combined(served: Served, rule: Rule) -> dict[str, Any]:
    """Weights and biases, where exits answer together."""
    if rule.combine == "none":
        return {}
    return {"combinations": [combination_json(leave.combine) for leave in served.manifest.exits]}


def split_sha256(examples: Examples) -> str:
    """Names the rows of a split: the hash of every input's name, type, shape and bytes, and of the labels."""
    digest = hashlib.sha256()
    for name, array in sorted({**examples.inputs, "": examples.labels_N}.items()):
        digest.update(f"{name} {array.dtype.str} {list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _rung_json(rung: Rung) -> dict[str, Any]:
    return {
        "thresholds": thresholds_json(rung.thresholds),
        "mean_loss": round(rung.mean_loss, _DIGITS),
        "mean_flops": round(rung.mean_flops, 1),
        "accuracy": None if rung.accuracy is None else round(rung.accuracy, _DIGITS),
        "exit_rates": [round(rate, _DIGITS) for rate in rung.exit_rates],
        "limit": _up(rung.limit),
        "limit_all": _up(rung.limit_all),
        "limit_exits": [None if limit is None else _up(limit) for limit in rung.limit_exits],
    }


def measured(rung: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """What is known of a rung of a written ladder, as an operating point's `measured`."""
    known = {"split": "certify", "n": rows}
    return known | {key: rung[key] for key in ("accuracy", "exit_rates", "mean_flops") if rung[key] is not None}


def _up(limit: float) -> float:
    """Rounded up, at most 1."""
    return float(min(math.ceil(limit * 10.0**_DIGITS) / 10.0**_DIGITS, 1.0))
