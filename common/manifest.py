"""The manifest of a bundle as typed values. `common.manifest_reader` makes it from `manifest.json`.

`docs/bundle.md` describes every field.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FORMAT_VERSION = 1
DTYPES = frozenset("bool uint8 int8 int16 int32 int64 float16 float32 float64".split())
CODECS = ("raw", "u8", "u8c", "u4", "u4c", "float16", "bfloat16")
AFFINE = frozenset({"u8", "u8c", "u4", "u4c"})  # those that divide a range into steps
PER_CHANNEL = frozenset({"u8c", "u4c"})  # with one range per channel, the first axis of a row
COMPRESSIONS = ("none", "zstd", "lz4")
COMBINE = ("none", "early", "all")  # early: the last exit answers by itself
RESERVED_POINTS = ("default", "full")


Range = float | tuple[float, ...]  # one end of a range: for the whole tensor, or one per channel


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Type and row shape of a tensor; a symbolic size such as "tokens" may differ from row to row."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]  # without the batch axis
    pad: float = 0.0  # fills rows up to a bucket

    @property
    def row_elements(self) -> int | None:
        """Elements per row, or None when a size is symbolic."""
        return None if self.symbols else math.prod(int(size) for size in self.shape)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbolic sizes."""
        return tuple(size for size in self.shape if isinstance(size, str))

    def fits(self, row_shape: Sequence[int]) -> bool:
        """Whether rows of this shape can be this tensor; any size fits a symbol."""
        return len(row_shape) == len(self.shape) and all(
            isinstance(size, str) or size == found for size, found in zip(self.shape, row_shape, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """How a door turns an image file into the input tensor."""

    tensor: str
    mode: str = "RGB"  # "L" or "RGB"
    size: tuple[int, int]  # height, width
    fit: str = "stretch"  # "exact", "stretch", "contain" (pad), "cover" (crop)
    layout: str = "CHW"  # or "HWC"
    invert: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The part of the backbone between two cuts, with the exit at its end."""

    file: str
    sha256: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    exit: int | None = None
    view: int | None = None
    flops: int = 0  # per row
    parameters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CutTensor:
    """A tensor that crosses a cut, and how it is coded there."""

    name: str
    codec: str = "raw"
    compression: str = "none"
    low: Range | None = None  # calibrated range of an affine codec; None: that of each message
    high: Range | None = None


def coded_cuts(cuts: Sequence[Sequence[CutTensor]], input_cuts: Collection[int], crossed: Iterable[int]) -> list[int]:
    """Of the cuts that a system crosses, those where activations travel otherwise than `raw`.

    As long as every cut from the device up forwards the input, no activation travels at all.
    """
    found: list[int] = []
    inputs_only = True
    for cut in sorted(set(crossed)):
        inputs_only = inputs_only and cut in input_cuts
        if not inputs_only and any(how.codec != "raw" for how in cuts[cut]):
            found.append(cut)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """How the exits passed and this one answer together: p ~ exp(bias) * product over exits j of p_j ** weights[j].

    Wolczyk et al., "Zero Time Waste: Recycling Predictions in Early Exit Neural Networks" (2021), section 3.2.
    """

    weights: tuple[float, ...]  # from exit 0 up to this one, none negative
    bias: tuple[float, ...]  # per class


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedGate:
    """A logistic gate over what the class probabilities show, for an exit whose stage writes no gate."""

    bias: float
    log_odds: float  # weight of log(p / (1 - p)), p the largest class probability
    entropy: float  # of the normalised entropy
    margin: float  # of the largest minus the second largest probability
    agreement: float  # of giving the same answer as the exit before, 0 or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A place an answer can leave."""

    stage: int
    logits: str
    temperature: float = 1.0
    gate: str | None = None  # tensor with the logit of its learned gate
    combine: Combination | None = None  # with the exits before it, for operating points that ask for it


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """A named set of thresholds, what was measured with it, and for which configuration."""

    name: str
    criterion: str
    thresholds: tuple[float, ...]  # one per exit; NaN never accepts
    combine: str = "none"  # one of COMBINE: which exits answer together with those before them
    gates: tuple[FittedGate | None, ...] = ()  # per exit, for criterion `gate`; empty: none is fitted
    measured: Mapping[str, Any] | None = None
    guarantee: Mapping[str, Any] | None = None
    configuration: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything a tier must know about a network."""

    name: str
    inputs: tuple[str, ...]
    image: ImageSpec | None
    classes: tuple[str, ...]
    tensors: Mapping[str, TensorSpec]
    buckets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    stages: tuple[Stage, ...]
    cuts: tuple[tuple[CutTensor, ...], ...]  # cuts[k] lies behind stage k
    exits: tuple[Exit, ...]
    operating_points: Mapping[str, OperatingPoint]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    input_codes: tuple[CutTensor, ...] = ()  # how the input travels between tiers, lossless
    input_cuts: frozenset[int] = frozenset()  # cuts at which it travels instead of the activations

    def codes(self, stage: int) -> tuple[CutTensor, ...]:
        """How the tensors that are live at `stage` travel to the tier that runs it."""
        return self.cuts[stage - 1] if stage else self.input_codes

    def live(self, stage: int) -> tuple[str, ...]:
        """Names of the tensors that must be there before `stage` runs."""
        return self.inputs if stage == 0 else tuple([t.name for t in self.cuts[stage - 1]])
