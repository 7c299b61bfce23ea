"""Early-exit neural networks served from the device to the cloud.

    import offramp

    bundle = offramp.load_bundle("bundles/mnist-lenet")
    print(bundle.name, list(bundle.manifest.operating_points))

load_bundle opens and verifies a bundle; calibrate and evaluate work on one. add_exits puts exits on a network of
your own and makes it a MultiExitNetwork; train and export make a bundle of that; they need torch. A name is loaded
when it is first used, so that importing offramp costs little and never imports torch by itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calibration.calibrate import calibrate
    from calibration.evaluate import evaluate
    from offramp.bundles import load_bundle
    from training.add_exits import add_exits
    from training.export import export
    from training.network import MultiExitNetwork
    from training.train import train

_HOME = Path(__file__).resolve().parent.parent
_ROOMS = ("common", "protos", "device", "edge", "cloud", "calibration", "training")
_NAMES = {  # public name -> module
    "MultiExitNetwork": "training.network",
    "add_exits": "training.add_exits",
    "calibrate": "calibration.calibrate",
    "evaluate": "calibration.evaluate",
    "export": "training.export",
    "load_bundle": "offramp.bundles",
    "train": "training.train",
}

__all__ = ["MultiExitNetwork", "add_exits", "calibrate", "evaluate", "export", "load_bundle", "train"]


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
