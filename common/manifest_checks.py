"""What must hold between the parts of a manifest: tensors, stages, cuts, exits and operating points."""

from __future__ import annotations

import math

from common.criteria import CRITERIA
from common.errors import BundleError
from common.manifest import PER_CHANNEL, RESERVED_POINTS, Combination, CutTensor, Manifest, OperatingPoint, TensorSpec


def check_graph(m: Manifest) -> None:
    """Every tensor is declared, written before it is read, and alive at the cuts that it crosses."""
    if not m.inputs:
        raise BundleError("manifest.json: input.tensors must name at least one tensor.")
    if not m.classes:
        raise BundleError("manifest.json: classes must name at least one class.")
    if not m.stages:
        raise BundleError("manifest.json: stages must hold at least one stage.")
    if len(m.cuts) != len(m.stages) - 1:
        raise BundleError(
            f"manifest.json: cuts has {len(m.cuts)} entries. {len(m.stages)} stages need {len(m.stages) - 1}."
        )
    if m.image is not None and m.image.tensor not in m.inputs:
        raise BundleError(f"manifest.json: input.image.tensor {m.image.tensor!r} is not an input tensor.")
    _check_twins(m)
    used = {*m.inputs}.union(*({*s.reads, *s.writes} for s in m.stages))
    for tensor in sorted(used - set(m.tensors)):
        raise BundleError(f"manifest.json: tensor {tensor!r} is used but not described under tensors.")
    for number, stage in enumerate(m.stages):
        live = set(m.live(number))
        for tensor in stage.reads:
            if tensor not in live:
                raise BundleError(
                    f"manifest.json: stages[{number}] reads {tensor!r}, which does not cross the cut before it."
                )
        if number < len(m.cuts):
            for crossing in m.cuts[number]:
                if crossing.name not in live | set(stage.writes):
                    raise BundleError(
                        f"manifest.json: cuts[{number}] carries {crossing.name!r}, which nobody has written."
                    )
                _check_codec(m.tensors[crossing.name], crossing, f"manifest.json: cuts[{number}]")


def _check_twins(m: Manifest) -> None:
    lists = {"input.tensors": m.inputs}
    for number, stage in enumerate(m.stages):
        lists |= {f"stages[{number}].reads": stage.reads, f"stages[{number}].writes": stage.writes}
    for number, cut in enumerate(m.cuts):
        lists[f"cuts[{number}].tensors"] = tuple(tensor.name for tensor in cut)
    for where, names in lists.items():
        twins = sorted(name for name in set(names) if names.count(name) > 1)
        if twins:
            raise BundleError(f"manifest.json: {where} names {twins[0]!r} twice.")


def _check_codec(spec: TensorSpec, how: CutTensor, where: str) -> None:
    if how.codec != "raw" and not spec.dtype.startswith("float"):
        raise BundleError(f"{where} codes {how.name!r} with {how.codec}. Only float activations may be coded.")
    channels = spec.shape[0] if spec.shape else None
    if how.codec in PER_CHANNEL and not isinstance(channels, int):
        raise BundleError(f"{where} codes {how.name!r} with {how.codec}, but its rows have no fixed first axis.")
    ranges = len(how.low) if isinstance(how.low, tuple) else None
    if how.low is not None and ranges != (channels if how.codec in PER_CHANNEL else None):
        wanted = f"lists of {channels} numbers, one per channel" if how.codec in PER_CHANNEL else "one number each"
        raise BundleError(f"{where}: low and high of {how.name!r} must be {wanted}, as {how.codec} has them.")


def check_exits(m: Manifest) -> None:
    """Exits are numbered in order, lie where the stages say, and the last stage has one."""
    numbered = [(stage.exit, k) for k, stage in enumerate(m.stages) if stage.exit is not None]
    if [e for e, _ in numbered] != list(range(len(m.exits))) or not m.exits:
        raise BundleError(
            "manifest.json: the stages' exits must be numbered 0, 1, ... in order, one per entry of exits."
        )
    if numbered[-1][1] != len(m.stages) - 1:
        raise BundleError("manifest.json: the last stage must have an exit.")
    for (number, stage), leave in zip(numbered, m.exits, strict=True):
        if leave.stage != stage:
            raise BundleError(f"manifest.json: exits[{number}].stage is {leave.stage}. The exit lies at stage {stage}.")
        if leave.logits not in m.stages[stage].writes:
            raise BundleError(
                f"manifest.json: exits[{number}].logits {leave.logits!r} is not written by stage {stage}."
            )
        if m.tensors[leave.logits].shape != (len(m.classes),):
            raise BundleError(
                f"manifest.json: tensor {leave.logits!r} has row shape {list(m.tensors[leave.logits].shape)}. "
                f"An exit's logits must have one number per class, [{len(m.classes)}]."
            )
        if leave.gate is not None:
            _check_gate(m, number, leave.gate)
        if leave.combine is not None:
            _check_combination(m, number, leave.combine)


def _check_gate(m: Manifest, number: int, gate: str) -> None:
    stage = m.exits[number].stage
    if gate not in m.stages[stage].writes:
        raise BundleError(f"manifest.json: exits[{number}].gate {gate!r} is not written by stage {stage}.")
    spec = m.tensors[gate]
    if not spec.dtype.startswith("float") or spec.row_elements != 1:
        raise BundleError(
            f"manifest.json: tensor {gate!r} is {spec.dtype} with row shape {list(spec.shape)}. "
            "A gate must have one floating-point number per row."
        )


def _check_combination(m: Manifest, number: int, combine: Combination) -> None:
    for what, found, wanted, per in (
        ("weights", len(combine.weights), number + 1, "exit up to this one"),
        ("bias", len(combine.bias), len(m.classes), "class"),
    ):
        if found != wanted:
            raise BundleError(
                f"manifest.json: exits[{number}].combine.{what} has {found} numbers. It needs {wanted}, one per {per}."
            )


def _check_gates(m: Manifest, point: OperatingPoint) -> None:
    where = f"operating_points.{point.name}"
    if point.gates and (point.criterion != "gate" or len(point.gates) != len(m.exits)):
        raise BundleError(
            f"manifest.json: {where}.gates must have one entry per exit ({len(m.exits)}), for criterion gate only."
        )
    for number, leave in enumerate(m.exits[:-1]):
        fitted = point.gates[number] if point.gates else None
        if fitted is not None and leave.gate is not None:
            raise BundleError(f"manifest.json: {where}.gates[{number}] must be null: exits[{number}] has a gate.")
        gated = fitted is not None or leave.gate is not None
        if point.criterion == "gate" and not gated and not math.isnan(point.thresholds[number]):
            raise BundleError(f"manifest.json: {where}.thresholds[{number}] must be null: exits[{number}] has no gate.")


def check_points(m: Manifest) -> None:
    """The reserved operating points are there, and every point has a threshold that fits each exit."""
    for name in RESERVED_POINTS:
        if name not in m.operating_points:
            raise BundleError(f"manifest.json: operating point {name!r} is missing.")
    for name, point in m.operating_points.items():
        where = f"operating_points.{name}.thresholds"
        if len(point.thresholds) != len(m.exits):
            raise BundleError(f"manifest.json: {where} has {len(point.thresholds)} entries for {len(m.exits)} exits.")
        if point.thresholds[-1] != CRITERIA[point.criterion].accept_all:
            raise BundleError(
                f"manifest.json: {where} must end with {CRITERIA[point.criterion].accept_all}: "
                "the last exit accepts every row."
            )
        _check_gates(m, point)
        for number, leave in enumerate(m.exits[: {"none": 0, "early": -1, "all": None}[point.combine]]):
            if leave.combine is None:
                raise BundleError(
                    f"manifest.json: operating_points.{name}.combine is {point.combine}, "
                    f"but exits[{number}] has no combine."
                )
    if not all(math.isnan(t) for t in m.operating_points["full"].thresholds[:-1]):
        raise BundleError("manifest.json: operating point 'full' must have null for every exit but the last.")
