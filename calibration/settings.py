"""What a recipe says about data, cuts and calibration; a bundle carries it along in its provenance."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from common.errors import ConfigError

Section = TypeVar("Section", bound="Strict")


class Strict(BaseModel):
    """A section that refuses unknown keys and does not convert one type into another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataSettings(Strict):
    """Which data set, and how many rows of its train split are set aside for what."""

    dataset: str
    url: str | None = None  # where to fetch the files from, instead of the known place
    seed: int = Field(default=0, ge=0)  # of the permutation that divides the train split
    validation: int = Field(gt=0)
    tune: int = Field(gt=0)
    calibration: int = Field(gt=0)


class CutSettings(Strict):
    """How tensors travel over every cut."""

    codec: Literal["raw", "u8", "u8c", "u4", "u4c", "float16", "bfloat16"] = "u8"
    compression: Literal["none", "zstd", "lz4"] = "zstd"
    choose: bool = False  # let calibration pick codec and compression of each tensor, by bytes
    forward: Literal["activations", "auto"] = "activations"  # auto: the compressed input where that is smaller
    drop: float = Field(default=0.001, ge=0.0, lt=1.0)  # most that a chosen code may cost the last exit's accuracy
    changed: float = Field(default=0.005, ge=0.0, le=1.0)  # most rows whose last answer a chosen code may change
    loss: float = Field(
        default=0.001, ge=0.0
    )  # largest rise of any later exit's mean cross-entropy that a code may cost

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that came later are left out at their defaults: a bundle made anew keeps its digest."""
        full: dict[str, Any] = dump(self)
        later = {"choose": False, "forward": "activations", "drop": 0.001, "changed": 0.005}
        return {key: value for key, value in full.items() if key not in later or value != later[key]}


class GuaranteeSettings(Strict):
    """An operating point whose thresholds carry a guarantee; see `calibration.certify`."""

    name: str = Field(default="guaranteed", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")  # of the operating point
    risk: Literal["disagreement", "accuracy-gap"] = "disagreement"
    epsilon: float = Field(gt=0.0, lt=1.0)  # what the mean loss may be at most
    delta: float = Field(default=0.1, gt=0.0, lt=1.0)  # probability that it is more all the same


class CalibrationSettings(Strict):
    """How the thresholds of the operating points are chosen: `default`, and one with a guarantee if wanted."""

    criterion: Literal["max-probability", "entropy", "margin", "gate"] = "max-probability"
    target_drop: float = Field(default=0.001, ge=0.0, lt=1.0)  # share of rows, against the last exit
    confidence: float = Field(default=0.9, ge=0.5, lt=1.0)  # of the drop's one-sided upper limit
    candidates: int = Field(default=50, ge=1, le=500)  # thresholds tried per exit
    guarantee: GuaranteeSettings | None = None


def parse_section(kind: type[Section], value: object, file: str) -> Section:
    """Check a decoded section or document.

    Raises:
        ConfigError: one sentence that names the file, the key and, for an unknown key, the nearest valid one.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{file} must hold keys and values.")
    try:
        return kind.model_validate(dict(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{file}: {where} is not a known key.{_nearest(kind, first['loc'])}") from None
        if first["type"] == "missing":
            raise ConfigError(f"{file}: {where} is missing.") from None
        shown = repr(first.get("input"))[:60]
        raise ConfigError(f"{file}: {where} is {shown}. {first['msg']}.") from None


def _nearest(kind: type[BaseModel], where: tuple[int | str, ...]) -> str:
    for part in where[:-1]:
        inner: Any = kind.model_fields[str(part)].annotation if str(part) in kind.model_fields else None
        sections = [a for a in (inner, *get_args(inner)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not sections:
            return ""
        kind = sections[0]
    near = difflib.get_close_matches(str(where[-1]), kind.model_fields, n=1, cutoff=0.4)
    return f" Did you mean {near[0]}?" if near else f" Valid keys: {', '.join(sorted(kind.model_fields))}."
