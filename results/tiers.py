"""`python -m results.tiers --data-dir DIR`: the frozen MobileNetV2 with exits as a bundle that three tiers can share.

`benchmarks mobilenet` serves it. The classifier of its owner, and how the exits are trained, are those of the table of
`results.frozen`; there are three exits instead of six, so that there are fewer ways to divide the stages, and their
thresholds carry a guarantee.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import OfframpError
from results.frozen import RUN, need_classifier
from results.runs import WORK, Run, Settings

TIERS = Run(
    name="mobilenet-tiers",
    recipe=RUN.recipe,
    changes={
        "name": "mobilenet-tiers",
        "exits.at": [0.35, 0.52, 0.72],
        "cuts": {"codec": "u8", "compression": "zstd", "choose": True},
        "calibration.target_drop": 0.001,
        "calibration.guarantee": {"risk": "accuracy-gap", "epsilon": 0.005, "delta": 0.1},
    },
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit the classifier unless that is done, then build the bundle; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m results.tiers", description=__doc__)
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="data sets, each in a subfolder with its name")
    parser.add_argument("--work", type=Path, metavar="DIR", default=WORK, help="where the bundle goes")
    options = parser.parse_args(arguments)
    settings = Settings(data_dir=options.data_dir, work=options.work)
    try:
        need_classifier(settings)
        print(TIERS.build(settings))
    except OfframpError as error:
        print(f"results: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
