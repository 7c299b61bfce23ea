"""One tier's section of `tiers.yaml`, and the environment variables that override it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common import section as kinds
from common.address import Address, parse_address
from common.errors import ConfigError
from common.limits import DEFAULT_LIMITS, Limits
from common.section import Section

REST = "rest"  # `stages: rest`: every stage that is left
RESERVED = ("views", "plan", "audit")
PROTOCOLS = ("tier", "tier-unary")
RESERVED_PROTOCOLS = ("oip",)
OVERRIDES = ("GRPC", "REST", "OPS", "UPSTREAM")


@dataclass(frozen=True, slots=True, kw_only=True)
class TierConfig:
    """One tier: what it runs, where it listens, whom it dials."""

    name: str
    first: bool = False  # the entry tier, nearest to the device
    start: int = 0  # runs the stages [start, stop); start == stop: relay only
    stop: int = 0

    # where it listens; None: that door stays closed
    grpc: Address | None = None
    rest: Address | None = None
    ops: Address | None = None

    # whom it dials; empty on the last tier
    upstream: tuple[Address, ...] = ()
    upstream_timeout_ms: int = 1000  # longest wait for upstream
    upstream_protocol: str = "tier"

    # how it runs
    runtime: str = "onnxruntime"
    threads: int = 1  # of the runtime
    workers: int = 1  # processes that answer over REST
    limits: Limits = DEFAULT_LIMITS
    drain_seconds: float = 10.0  # longest wait for requests in flight after SIGTERM


def variable(tier: str, suffix: str) -> str:
    """The environment variable that overrides a key of a tier; `suffix` is one of OVERRIDES."""
    return f"OFFRAMP_{tier.upper().replace('-', '_')}_{suffix}"


def read_tier(path: Path, name: str, value: object, environ: Mapping[str, str]) -> tuple[TierConfig, int | None]:
    """The tier as its section and the environment give it, and how many stages it runs (None: the rest).

    Raises:
        ConfigError: one sentence about the first mistake found.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: tiers.{name} is {kinds.shown(value)}. It must be a mapping with the key stages.")
    section = Section(value, path, f"tiers.{name}", reserved=RESERVED)
    stages = section.take("stages", _stages)
    tier = TierConfig(
        name=name,
        grpc=section.take("grpc", _listen, None),
        rest=section.take("rest", _listen, None),
        ops=section.take("ops", _listen, None),
        upstream=section.take("upstream", _dial, ()),
        upstream_timeout_ms=section.take("upstream_timeout_ms", kinds.whole(10, 600_000), 1000),
        upstream_protocol=section.take("upstream_protocol", _protocol, "tier"),
        runtime=section.take("runtime", kinds.text, "onnxruntime"),
        threads=section.take("threads", kinds.whole(1, 256), 1),
        workers=section.take("workers", kinds.whole(1, 256), 1),
        limits=_limits(path, f"tiers.{name}.limits", section.take("limits", kinds.mapping, {})),
        drain_seconds=section.take("drain_seconds", kinds.number(0, 3600), 10.0),
    )
    section.done()
    changes: dict[str, Address | tuple[Address, ...]] = {}
    for suffix in OVERRIDES:
        if text := environ.get(variable(name, suffix)):
            try:
                if suffix == "UPSTREAM":
                    changes["upstream"] = _dial([part.strip() for part in text.split(",")])
                else:
                    changes[suffix.lower()] = _listen(text)
            except ValueError as error:
                raise ConfigError(f"{path}: {variable(name, suffix)} is {kinds.shown(text)}. It {error}.") from None
    tier = dataclasses.replace(tier, **changes)  # type: ignore[arg-type]
    if tier.workers > 1 and tier.rest is None:
        raise ConfigError(
            f"{path}: tiers.{name}.workers is {tier.workers}. Workers share the rest address, and there is none."
        )
    return tier, stages


def _limits(path: Path, where: str, values: Mapping[object, object]) -> Limits:
    section = Section(values, path, where)
    result = Limits(
        **{
            item.name: section.take(item.name, kinds.whole(1, 1 << 40), getattr(DEFAULT_LIMITS, item.name))
            for item in dataclasses.fields(Limits)
        }
    )
    section.done()
    return result


def _stages(value: object) -> int | None:
    if value == REST:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("must be a whole number from 0, or rest")
    return value


def _listen(value: object) -> Address:
    if not isinstance(value, str):
        raise ValueError("must be host:port, such as 127.0.0.1:8000, in quotes where YAML needs them")
    return parse_address(value)


def _dial(value: object) -> tuple[Address, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise ValueError("must be host:port, or a list of them")
    addresses = tuple(_listen(text) for text in texts)
    for address in addresses:
        if address.port == 0:
            raise ValueError("must be dialled, and port 0 cannot be")
        if address.wildcard:
            raise ValueError(f"must be dialled, and {address.host} cannot be: name the machine")
    if len(set(addresses)) != len(addresses):
        raise ValueError("must name each address once")
    return addresses


def _protocol(value: object) -> str:
    if value in RESERVED_PROTOCOLS:
        raise ValueError(f"is reserved for a later version; it must be {' or '.join(PROTOCOLS)}")
    if value not in PROTOCOLS:
        raise ValueError(f"must be {' or '.join(PROTOCOLS)}")
    return str(value)
