"""Another operating point from the certificate of one that is there, without opening the certify split again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibration.certificate import grouped, measured
from calibration.certify import check_promise
from calibration.document import load_document
from calibration.settings import GuaranteeSettings
from common.bundle import Bundle, write_manifest
from common.errors import ConfigError
from common.manifest import RESERVED_POINTS


def add_later(bundle_dir: Path, source: str, wanted: GuaranteeSettings) -> str:
    """Add an operating point for another epsilon to a bundle; no data are needed.

    Args:
        bundle_dir: the bundle; its manifest is replaced.
        source: an operating point with a certificate.
        wanted: name and epsilon of the new point; risk and delta must be those of the certificate. A point of that
            name is replaced only if it was made in this way, too.

    Returns:
        The bundle's new digest.

    Raises:
        BundleError: when the bundle is damaged.
        ConfigError: when the certificate does not reach so far; nothing is changed then.
    """
    bundle = Bundle(bundle_dir)
    document = load_document(bundle)
    points = document["operating_points"]
    if source not in points:
        raise ConfigError(f"{bundle_dir} has no operating point {source!r}. It has {', '.join(sorted(points))}.")
    if wanted.name in RESERVED_POINTS or not _can_be_replaced(points, wanted.name):
        raise ConfigError(f"Operating point {wanted.name!r} is there already. Give the new one a name of its own.")
    for key, value in (("risk", wanted.risk), ("delta", wanted.delta)):
        if (known := _guarantee(points[source]).get(key, value)) != value:
            raise ConfigError(f"The certificate of {source!r} has {key} {known}, not {value}.")
    points[wanted.name] = chosen_later(points[source], source, wanted.epsilon)
    return write_manifest(bundle.root, document)


def _can_be_replaced(points: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    """Whether nothing is lost with a point: there is none, or it can be made again from a certificate that is there."""
    if name not in points:
        return True
    source = _guarantee(points[name]).get("ladder_of")
    return isinstance(source, str) and _ladder(points.get(source, {})) is not None


def _guarantee(point: Mapping[str, Any]) -> Mapping[str, Any]:
    found = point.get("guarantee")
    return found if isinstance(found, Mapping) else {}


def _ladder(point: Mapping[str, Any]) -> list[Any] | None:
    found = _guarantee(point).get("ladder")
    return found if isinstance(found, list) else None


def chosen_later(point: Mapping[str, Any], name: str, epsilon: float) -> dict[str, Any]:
    """Another operating point from a certificate, for another epsilon; no row is looked at again.

    `limit_all` holds for all rungs at once, so the cheapest rung whose limit is at most epsilon may be taken.

    Args:
        point: an operating point of manifest.json that carries a certificate with its ladder.
        name: of that point, for errors.
        epsilon: the new promise, with the old delta.

    Returns:
        The new operating point for manifest.json.

    Raises:
        ConfigError: when the point carries no ladder, a damaged one, or no rung is good enough.
    """
    check_promise(epsilon, 0.5)
    if not _ladder(point):
        raise ConfigError(f"Operating point {name!r} carries no certificate with a ladder.")
    try:
        return _chosen(point, name, epsilon)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"The certificate of operating point {name!r} in manifest.json is damaged ({said})."
        ) from None


def _chosen(point: Mapping[str, Any], name: str, epsilon: float) -> dict[str, Any]:
    source = point["guarantee"]
    good = [
        (rung["mean_flops"], number) for number, rung in enumerate(source["ladder"]) if rung["limit_all"] <= epsilon
    ]
    if not good:
        least = min(rung["limit_all"] for rung in source["ladder"])
        raise ConfigError(
            f"No rung of operating point {name!r} shows epsilon {epsilon:g}: "
            f"the smallest of the limits that hold together is {least:g}."
        )
    number = min(good)[1]
    rung = source["ladder"][number]
    kept = {key: value for key, value in source.items() if key not in ("ladder", "statement")}
    said = (
        f"On rows like those of the certify split, the {source['risk']} is at most {100 * epsilon:.6g} % in the mean. "
        f"Together with all other limits of the ladder of {name!r}, this is wrong with probability at most "
        f"{source['delta']:g}.{grouped(source.get('group'))}"
    )
    return {
        **{key: point[key] for key in ("criterion", "combine", "gates") if key in point},
        "thresholds": rung["thresholds"],
        "measured": measured(rung, source["n"]),
        "guarantee": {
            **kept,
            "certified": True,
            "statement": said,
            "procedure": "union bound over all rungs; the rung was chosen by its limit_all",
            "epsilon": epsilon,
            "rung": number,
            "mean_loss": rung["mean_loss"],
            "limit": rung["limit_all"],
            "ladder_of": name,
            "configuration": {**source["configuration"], "thresholds": rung["thresholds"]},
        },
        "configuration": point["configuration"],
    }
