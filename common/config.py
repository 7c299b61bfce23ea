"""The configuration of a system of tiers: `tiers.yaml` and the environment, checked and typed.

Reading takes two steps. `load_config` checks all that the file can say by itself; `resolve` then fits the
stages and the operating point to the bundle. Either raises ConfigError with one sentence that names the file,
the key and the nearest valid key. `docs/configuration.md` describes every key.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common import section as kinds
from common.address import Address
from common.errors import ConfigError
from common.section import Section, nearest
from common.strict_yaml import read_yaml
from common.tier_config import OVERRIDES, RESERVED, TierConfig, read_tier, variable
from common.tier_name import TIER_NAME

__all__ = ["Address", "SystemConfig", "TierConfig", "TiersFile", "load_config", "resolve"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_log = logging.getLogger("offramp.config")


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemConfig:
    """Every tier of a system, from the device up, fitted to its bundle."""

    path: Path  # of tiers.yaml
    bundle: Path
    digest: str | None = None
    operating_point: str = "default"
    tiers: tuple[TierConfig, ...]

    def tier(self, name: str) -> TierConfig:
        """The tier called `name`; raises ConfigError naming the nearest when there is none."""
        return _tier(self.path, self.tiers, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TiersFile:
    """A checked `tiers.yaml` whose bundle has not been looked into: the tiers have no stage range yet."""

    path: Path
    bundle: Path
    digest: str | None = None
    operating_point: str = "default"
    tiers: tuple[TierConfig, ...]
    stages: tuple[int | None, ...] = field(repr=False)  # per tier; None: the rest

    def tier(self, name: str) -> TierConfig:
        """The tier called `name`; raises ConfigError naming the nearest when there is none."""
        return _tier(self.path, self.tiers, name)


def load_config(path: str | Path, environ: Mapping[str, str] = os.environ) -> TiersFile:
    """Read and check `tiers.yaml` and the OFFRAMP_* overrides.

    Raises:
        ConfigError: one sentence about the first mistake found.
    """
    path = Path(path)
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: the file must hold a mapping with the keys bundle and tiers.")
    top = Section(document, path, "", reserved=RESERVED)
    bundle = top.take("bundle", kinds.text)
    digest = top.take("digest", _digest, None)
    operating_point = top.take("operating_point", kinds.text, "default")
    sections = top.take("tiers", kinds.mapping)
    top.done()
    if not sections:
        raise ConfigError(f"{path}: tiers must name at least one tier.")
    names = _check_names(path, sections, environ)
    read = [read_tier(path, name, sections[name], environ) for name in names]
    stages = tuple(count for _, count in read)
    _check_rest(path, names, stages)
    return TiersFile(
        path=path,
        bundle=_find_bundle(path, bundle, environ.get("OFFRAMP_BUNDLE") or None),
        digest=digest,
        operating_point=operating_point,
        tiers=_connect(path, [tier for tier, _ in read]),
        stages=stages,
    )


def resolve(
    file: TiersFile, *, num_stages: int, operating_points: Iterable[str], runtimes: Collection[str] | None = None
) -> SystemConfig:
    """Fit a checked file to its bundle.

    Args:
        file: what `load_config` returned.
        num_stages: how many stages the bundle has.
        operating_points: the names that the bundle knows.
        runtimes: the runtimes of this machine; None leaves them unchecked.

    Raises:
        ConfigError: when the stages do not add up, or the operating point or a runtime is unknown.
    """
    points = list(operating_points)
    if file.operating_point not in points:
        raise ConfigError(
            f"{file.path}: operating_point is {kinds.shown(file.operating_point)}, which {file.bundle} does not have."
            f"{nearest(file.operating_point, points, 'operating point')}"
        )
    for tier in file.tiers:
        if runtimes is not None and tier.runtime not in runtimes:
            raise ConfigError(
                f"{file.path}: tiers.{tier.name}.runtime is {tier.runtime!r}, which is not here."
                f"{nearest(tier.runtime, runtimes, 'runtime')}"
            )
    counted = sum(count or 0 for count in file.stages)
    open_end = None in file.stages
    if counted > num_stages or (counted < num_stages and not open_end):
        raise ConfigError(
            f"{file.path}: the stages of all tiers add up to {counted}. {file.bundle} has {num_stages}: "
            f"change tiers.{file.tiers[-1].name}.stages, or set it to rest."
        )
    if open_end and counted == num_stages:
        raise ConfigError(
            f"{file.path}: tiers.{file.tiers[-1].name}.stages is rest, but the tiers before it "
            f"run all {num_stages} stages already."
        )
    tiers, start = [], 0
    for tier, count in zip(file.tiers, file.stages, strict=True):
        stop = num_stages if count is None else start + count
        tiers.append(dataclasses.replace(tier, start=start, stop=stop))
        start = stop
    return SystemConfig(
        path=file.path,
        bundle=file.bundle,
        digest=file.digest,
        operating_point=file.operating_point,
        tiers=tuple(tiers),
    )


def _tier(path: Path, tiers: tuple[TierConfig, ...], name: str) -> TierConfig:
    for tier in tiers:
        if tier.name == name:
            return tier
    raise ConfigError(f"{path}: there is no tier {name!r}.{nearest(name, [t.name for t in tiers], 'tier')}")


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError("must be 'sha256:' and 64 hexadecimal digits")
    return value


def _check_names(path: Path, names: Iterable[object], environ: Mapping[str, str]) -> tuple[str, ...]:
    """The names, when they are plain and no two of them share their environment variables."""
    owners: dict[str, str] = {}  # what a tier's variables start with -> the tier
    for name in names:
        if not isinstance(name, str) or not TIER_NAME.fullmatch(name):
            raise ConfigError(
                f"{path}: tiers has a tier called {kinds.shown(name)}. A name must start with a letter "
                "and go on with at most 62 letters, digits, '-' and '_'."
            )
        prefix = variable(name, "")
        if prefix in owners:
            raise ConfigError(
                f"{path}: the tiers {owners[prefix]!r} and {name!r} would share the environment variables "
                f"{prefix}*. Rename one."
            )
        owners[prefix] = name
    known = [prefix + suffix for prefix in owners for suffix in OVERRIDES]
    for found in sorted(environ):
        if found.startswith("OFFRAMP_") and found.endswith(OVERRIDES) and found not in known:
            if near := difflib.get_close_matches(found, known, n=1, cutoff=0.8):
                _log.warning("%s names no tier of %s and has no effect. Did you mean %s?", found, path, near[0])
    return tuple(owners.values())


def _check_rest(path: Path, names: tuple[str, ...], stages: tuple[int | None, ...]) -> None:
    for name, count in zip(names[:-1], stages[:-1], strict=True):
        if count is None:
            raise ConfigError(
                f"{path}: tiers.{name}.stages is rest, which only the last tier ({names[-1]}) may have: "
                "nothing is left for the tiers behind it."
            )
    if stages[-1] == 0:
        raise ConfigError(f"{path}: tiers.{names[-1]}.stages is 0. The last tier must run at least one stage, or rest.")


def _connect(path: Path, tiers: list[TierConfig]) -> tuple[TierConfig, ...]:
    """Every tier can be reached by the one before it, and knows whom it dials."""
    result: list[TierConfig] = []
    for number, tier in enumerate(tiers):
        where = f"{path}: tiers.{tier.name}"
        if number == 0 and tier.grpc is None and tier.rest is None:
            raise ConfigError(
                f"{where} has neither rest nor grpc, so that nobody can reach it. Give it a rest address."
            )
        if number > 0 and tier.grpc is None:
            raise ConfigError(f"{where}.grpc is missing, so that {tiers[number - 1].name} cannot reach it.")
        _check_own_addresses(where, tier)
        upstream = tier.upstream
        if number == len(tiers) - 1 and upstream:
            raise ConfigError(f"{where}.upstream is given, but the last tier forwards nothing. Remove it.")
        if number < len(tiers) - 1 and not upstream:
            next_tier = tiers[number + 1]
            if next_tier.grpc is not None:
                upstream = (_dialled(where, next_tier.name, next_tier.grpc),)
        result.append(dataclasses.replace(tier, first=number == 0, upstream=upstream))
    return tuple(result)


def _check_own_addresses(where: str, tier: TierConfig) -> None:
    taken: dict[Address, str] = {}
    for door in ("grpc", "rest", "ops"):
        address = getattr(tier, door)
        if address is None or address.port == 0:
            continue
        if address in taken:
            raise ConfigError(f"{where}.{door} is {address}, which {taken[address]} has already.")
        taken[address] = door


def _dialled(where: str, name: str, address: Address) -> Address:
    if address.wildcard or address.port == 0:
        what = "a wildcard" if address.wildcard else "any free port"
        raise ConfigError(
            f"{where}.upstream is missing, and tiers.{name}.grpc ({address}) is {what} that cannot be dialled. "
            "Write upstream: [host:port]."
        )
    return address


def _find_bundle(path: Path, bundle: str, override: str | None) -> Path:
    """The bundle's directory: as seen from the current directory, else from the file's own."""
    where = f"OFFRAMP_BUNDLE is {override!r}" if override else f"bundle is {bundle!r}"
    wanted = Path(override or bundle)
    places = [wanted] if wanted.is_absolute() else [wanted, path.parent / wanted]
    for place in places:
        if place.is_dir():
            return place
    looked = " nor ".join(str(place) for place in dict.fromkeys(places))
    raise ConfigError(f"{path}: {where}, and there is no directory {looked}.")
