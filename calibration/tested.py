"""Which promises the rows of a certify split have been tested for.

Whoever tests several and keeps the one that looks best breaks them all. Promises whose operating points are gone stay
in the bundle's provenance, as `tested_before`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calibration.notes import NOTE

_KEYS = ("risk", "epsilon", "delta", "criterion", "combine")
_BEFORE = "tested_before"

Promise = dict[str, Any]  # `_KEYS`, certify_sha256, and the name of the operating point


@dataclass(frozen=True, kw_only=True)
class Tested:
    """The promises that a bundle's rows were tested for until now.

    Args:
        promises: on any split.
    """

    promises: Sequence[Promise]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Tested:
        """What a bundle's manifest says."""
        return cls(promises=[*document["provenance"].get(_BEFORE, []), *_made(document)])

    def note(self, asked: Sequence[Mapping[str, Any]], sha256: str) -> str | None:
        """What must be said before promises are tested, if anything.

        Args:
            asked: all of `_KEYS` of each.
            sha256: of the certify split that is to be tested.
        """
        known = [promise for promise in self.promises if promise.get("certify_sha256") == sha256]
        if not known or all(_terms(promise) in map(_terms, known) for promise in asked):
            return None
        said = ", ".join(dict.fromkeys(f"{promise.get('epsilon')} ({promise.get('name')})" for promise in known))
        return (
            f"{NOTE}the same rows were tested before, for epsilon {said}. A promise holds for "
            "what was fixed beforehand; `--from NAME` takes another epsilon from the limits that are there."
        )

    def keep(self, document: dict[str, Any]) -> None:
        """Write into a manifest the promises that none of its operating points tells any more."""
        told = [_test(promise) for promise in _made(document)]
        gone = {_test(promise): promise for promise in self.promises if _test(promise) not in told}
        document["provenance"].pop(_BEFORE, None)
        if gone:
            document["provenance"][_BEFORE] = list(gone.values())


def _made(document: Mapping[str, Any]) -> Iterator[Promise]:
    """Those of a manifest's operating points that were tested themselves."""
    for name, point in document["operating_points"].items():
        paper = point.get("guarantee") or {}
        if "certify_sha256" in paper and "ladder_of" not in paper:
            rule = {"criterion": point.get("criterion"), "combine": point.get("combine", "none")}
            yield {key: paper.get(key) for key in (*_KEYS, "certify_sha256")} | rule | {"name": name}


def _terms(promise: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(promise.get(key) for key in _KEYS)


def _test(promise: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*_terms(promise), promise.get("certify_sha256"))
