"""What a recipe says about data, cuts and calibration; a bundle carries it along in its provenance."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from common.errors import ConfigError

Section = TypeVar("Section", bound="Strict")


class Strict(BaseModel):
    """A section that refuses unknown keys and does not convert one type into another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _size(value: object) -> int | float:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, float) and 0.0 < value < 1.0:
        return value
    raise ValueError("It must be a number of rows, or a share between 0 and 1")


def _test(value: object) -> int | float | str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return _size(value)
    except ValueError:
        raise ValueError("It must be a file, a number of rows, or a share between 0 and 1") from None


def _names(value: object) -> object:
    return [value] if isinstance(value, str) else value


Size = Annotated[int | float, PlainValidator(_size)]
TestRows = Annotated[int | float | str | None, PlainValidator(_test)]
Names = Annotated[list[str], BeforeValidator(_names)]


class DataSettings(Strict):
    """Which data set, and how its rows are divided; `docs/data.md` describes the formats and their keys."""

    dataset: str  # one of `calibration.data.known.DATASETS`, or a file, folder or FILE.py:FUNCTION of the user's own
    url: str | None = None  # where to fetch the files from, instead of the known place
    seed: int = Field(default=0, ge=0)  # of the permutation that divides the rows
    validation: Size = 0.1
    tune: Size = 0.1
    calibration: Size | None = None  # what `certify` was called before
    certify: Size | None = None
    test: TestRows = None  # a file of its own, or how many rows are set aside where the data bring none
    duplicates: Literal["refuse", "drop"] = "refuse"  # training rows that the test rows hold as well
    label: str | None = None  # name of the array or column
    group: str | None = None  # of rows that belong together, such as one person's
    input: Names | None = None
    ignore: Names = []
    size: list[int] | None = None  # of images, height and width
    mode: Literal["L", "RGB"] | None = None
    fit: Literal["exact", "stretch", "contain", "cover"] | None = None
    shape: list[int] | None = None  # of a row of numbers
    dtype: Literal["uint8", "int64", "float32"] | None = None
    options: dict[str, Any] = Field(default_factory=dict)  # keyword arguments of the user's function

    @model_validator(mode="before")
    @classmethod
    def _certify(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        if value.get("certify") is not None and value.get("calibration") is not None:
            raise ValueError("It has certify and calibration, which are the same. Leave calibration out")
        if value.get("certify") is None and value.get("calibration") is None:
            return {**value, "certify": 0.15}
        return value

    @property
    def sizes(self) -> dict[str, int | float]:
        """What is set aside from the train rows, in the order in which it is drawn."""
        held = self.calibration if self.certify is None else self.certify
        assert held is not None
        return {"validation": self.validation, "tune": self.tune, "certify": held}

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that came later are left out at their defaults: a bundle made anew keeps its digest."""
        full: dict[str, Any] = dump(self)
        kept = {"dataset", "url", "seed", "validation", "tune"}
        return {key: value for key, value in full.items() if key in kept or value not in (None, [], {}, "refuse")}


class CutSettings(Strict):
    """How tensors travel over every cut."""

    codec: Literal["raw", "u8", "u8c", "u4", "u4c", "float16", "bfloat16"] = "u8"
    compression: Literal["none", "zstd", "lz4"] = "zstd"
    choose: bool = False  # let calibration pick codec and compression of each tensor, by bytes
    forward: Literal["activations", "auto"] = "activations"  # auto: the compressed input where that is smaller
    drop: float = Field(default=0.001, ge=0.0, lt=1.0)  # most that a chosen code may cost the last exit's accuracy
    changed: float = Field(default=0.005, ge=0.0, le=1.0)  # most rows whose last answer a code may change
    loss: float = Field(
        default=0.001, ge=0.0
    )  # largest rise of any later exit's mean cross-entropy that a code may cost

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that came later are left out at their defaults: a bundle made anew keeps its digest."""
        full: dict[str, Any] = dump(self)
        later = {"choose": False, "forward": "activations", "drop": 0.001, "changed": 0.005}
        return {key: value for key, value in full.items() if key not in later or value != later[key]}


CriterionName = Literal["max-probability", "entropy", "margin", "patience", "gate"]
CombineName = Literal["none", "early", "all"]
_WAYS = ("target_drop", "budget", "thresholds", "guarantee")


class PromiseSettings(Strict):
    """What a guarantee promises."""

    risk: Literal["disagreement", "accuracy-gap"] = "disagreement"
    epsilon: float = Field(gt=0.0, lt=1.0)  # what the mean loss may be at most
    delta: float = Field(default=0.1, gt=0.0, lt=1.0)  # probability that it is more all the same


class GuaranteeSettings(PromiseSettings):
    """An operating point whose thresholds carry a guarantee; see `calibration.certify`."""

    name: str = Field(default="guaranteed", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")  # of the operating point


class PointSettings(Strict):
    """One more operating point; exactly one key says how its thresholds are found."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    criterion: CriterionName | None = None  # None: that of `default`
    combine: CombineName | None = None  # None: that of `default`

    target_drop: float | None = Field(default=None, ge=0.0, lt=1.0)
    budget: float | None = Field(default=None, gt=0.0, le=1.0)  # mean FLOPs, as a share of the last exit's
    thresholds: list[float | None] | None = None  # one per early exit; None never accepts
    guarantee: PromiseSettings | None = None

    @model_validator(mode="after")
    def _one_way(self) -> PointSettings:
        given = [way for way in _WAYS if getattr(self, way) is not None]
        if len(given) != 1:
            raise ValueError(f"It must have exactly one of {', '.join(_WAYS)}")
        return self

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if value is not None}


class CalibrationSettings(Strict):
    """How the thresholds of the operating points are chosen: `default`, and others by name."""

    criterion: CriterionName = "max-probability"
    combine: CombineName = "none"  # which exits answer together with those before them
    target_drop: float = Field(default=0.001, ge=0.0, lt=1.0)  # share of rows, against the last exit
    confidence: float = Field(default=0.9, ge=0.5, lt=1.0)  # of the drop's one-sided upper limit
    candidates: int = Field(default=50, ge=1, le=500)  # thresholds tried per exit
    guarantee: GuaranteeSettings | None = None
    points: list[PointSettings] = Field(default_factory=list, validate_default=True)

    @field_validator("points", mode="after")
    @classmethod
    def _names(cls, points: list[PointSettings], info: ValidationInfo) -> list[PointSettings]:
        guarantee = info.data.get("guarantee")
        names = [point.name for point in points] + ([] if guarantee is None else [guarantee.name])
        if "full" in names:
            raise ValueError("Operating point 'full' is every row at the last exit. Give the point another name")
        if twins := sorted(name for name in set(names) if names.count(name) > 1):
            raise ValueError(f"Operating point {twins[0]!r} appears twice")
        return points

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As for cuts: keys that came later are left out at their defaults."""
        full: dict[str, Any] = dump(self)
        later = {"combine": "none", "points": []}
        return {key: value for key, value in full.items() if key not in later or value != later[key]}

    def of_exits(self, kept: Sequence[int]) -> CalibrationSettings:
        """The same for a network that keeps these of its exits, the last one among them."""
        points = [
            point
            if point.thresholds is None
            else point.model_copy(update={"thresholds": [point.thresholds[number] for number in kept[:-1]]})
            for point in self.points
        ]
        return self.model_copy(update={"points": points})

    def all_points(self) -> list[PointSettings]:
        """Every operating point but `full`: `default` and `guarantee` as their keys say, then `points`."""
        found = {"default": PointSettings(name="default", target_drop=self.target_drop)}
        if self.guarantee is not None:
            promise = self.guarantee.model_dump(exclude={"name"})
            found[self.guarantee.name] = PointSettings(name=self.guarantee.name, guarantee=PromiseSettings(**promise))
        found |= {point.name: point for point in self.points}
        own = {"criterion": self.criterion, "combine": self.combine}
        return [
            point.model_copy(update={key: value for key, value in own.items() if getattr(point, key) is None})
            for point in found.values()
        ]


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
        raise ConfigError(f"{file}: {_sentence(kind, error.errors(include_url=False)[0])}") from None


def _sentence(kind: type[BaseModel], error: ErrorDetails) -> str:
    place = _followed(kind, error["loc"])
    where = ".".join(place.keys)
    if error["type"] == "extra_forbidden":
        return f"{where} {_no_key(place)}"
    if error["type"] == "missing":
        return f"{where} is missing."
    given = "empty" if error.get("input") is None else repr(error.get("input"))[:60]
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        said = f"It must hold keys and values{_such_as(place.holds)}"
    elif error["type"] == "list_type":
        said = f"It must be a list{' of sections' * bool(place.holds)}{_such_as(place.holds)}"
    else:
        said = _expected(error)
    return f"{where} is {given}. {said}."


_EXPECTED = {  # pydantic's type of an error -> what was expected, with its context
    "bool_type": "It must be true or false",
    "int_type": "It must be a whole number",
    "int_from_float": "It must be a whole number",
    "float_type": "It must be a number",
    "finite_number": "It must be a finite number",
    "string_type": "It must be text",
    "literal_error": "It must be {expected}",
    "greater_than": "It must be above {gt:g}",
    "greater_than_equal": "It must be at least {ge:g}",
    "less_than": "It must be below {lt:g}",
    "less_than_equal": "It must be at most {le:g}",
    "string_pattern_mismatch": "It must match {pattern}",
    "too_short": "It must have at least {min_length} entries",
    "too_long": "It must have at most {max_length} entries",
    "value_error": "{error}",
}


def _expected(error: ErrorDetails) -> str:
    """What a value must be, as a sentence without its full stop."""
    wording = _EXPECTED.get(error["type"])
    return error["msg"] if wording is None else wording.format(**error.get("ctx", {}))


def _such_as(sections: Sequence[type[BaseModel]]) -> str:
    """The keys of the first section, those that it needs first."""
    fields = sections[0].model_fields if sections else {}
    keys = sorted(fields, key=lambda key: not fields[key].is_required())
    return f". Some keys: {', '.join(keys[:4])}" if keys else ""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where an error lies."""

    keys: tuple[str, ...]
    section: type[BaseModel] | None = None  # that the last key lies in, if it is known
    chosen: str = ""  # by which value of another key that section was chosen among several, if it was
    others: tuple[type[BaseModel], ...] = ()
    holds: tuple[type[BaseModel], ...] = ()  # what the last key may hold


def _followed(kind: type[BaseModel], where: tuple[int | str, ...]) -> _Place:
    """Follow an error's place; where a section is one of several, pydantic names the one taken, which is no key."""
    place = _Place(keys=())
    inside, chosen, others = [kind], "", [kind]
    for part in where:
        if isinstance(part, int):  # a place in a list, whose sections are those of the key before
            place = replace(place, keys=(*place.keys, str(part)))
            continue
        if len(inside) > 1:
            inside, chosen, others = [one for one in inside if part in _defaults(one)], str(part), inside
            continue
        section = inside[0] if inside else None
        place = _Place(keys=(*place.keys, str(part)), section=section, chosen=chosen, others=tuple(others))
        fields = section.model_fields if section is not None else {}
        inside = _sections(fields[str(part)].annotation) if part in fields else []
        chosen, others = "", []
    return replace(place, holds=tuple(inside))


def _defaults(section: type[BaseModel]) -> list[Any]:
    return [field.default for field in section.model_fields.values()]


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections(inner)]


def _no_key(place: _Place) -> str:
    """What is wrong with a key that its section does not have."""
    key, section = place.keys[-1], place.section
    if section is None:
        return "is not a known key."
    if owners := [other for other in place.others if key in other.model_fields]:
        by = next(name for name, field in section.model_fields.items() if field.default == place.chosen)
        names = ", ".join(str(other.model_fields[by].default) for other in owners)
        return f"has no effect with {by} {place.chosen}. It belongs to {names}."
    near = difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.4)
    if near:
        return f"is not a known key. Did you mean {near[0]}?"
    return f"is not a known key. Valid keys: {', '.join(sorted(section.model_fields))}."
