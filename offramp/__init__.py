"""Early-exit neural networks served from the device to the cloud.

    import offramp

    bundle = offramp.load_bundle("bundles/mnist-lenet")

The names below are loaded when they are first used, so that importing offramp costs nothing and imports
torch only where networks are built: MultiExitNetwork, train and export.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offramp.bundles import load_bundle

_HOME = Path(__file__).resolve().parent.parent
_ROOMS = ("common", "protos", "device", "edge", "cloud", "calibration", "training")
_NAMES = {"load_bundle": "offramp.bundles"}  # public name -> module

__all__ = ["load_bundle"]


def _foreign() -> str | None:
    """A sentence about the first package on the path that hides one of offramp's own, or None.

    offramp's packages have plain names such as `common`; another project's may come first on the path.
    """
    for room in _ROOMS:
        spec = importlib.util.find_spec(room)
        place = None if spec is None or spec.origin is None else Path(spec.origin).resolve().parent
        if place != _HOME / room:
            found = "is missing" if place is None else f"is taken by {place}"
            return (
                f"offramp needs its own package {room!r} from {_HOME}, but that name {found}: "
                "give offramp an environment of its own and leave the other one off the path."
            )
    return None


if (_sentence := _foreign()) is not None:
    if Path(sys.argv[0]).name == "offramp":  # the command itself: no traceback for people
        raise SystemExit(f"offramp: {_sentence}")
    raise ImportError(_sentence)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'offramp' has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
