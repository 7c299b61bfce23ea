"""The images that are sent: PNG files, as small as PNG makes them, with the right answer in their names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.paths import BUILT, ROOT
from calibration.datasets import load_test
from calibration.settings import DataSettings
from common.bundle import MANIFEST

_COUNT = 2000


def images_of(bundle: Path) -> Path:
    """A folder with images of the bundle's test split.

    With DATA_DIR in the environment they are the first 2,000 of that split, else those under examples/.
    """
    data = DataSettings.model_validate(json.loads((bundle / MANIFEST).read_text())["provenance"]["recipe"]["data"])
    examples = ROOT / "examples" / data.dataset
    where = os.environ.get("DATA_DIR")
    if not where and examples.is_dir():
        return examples
    folder = BUILT / f"fog-{data.dataset}"
    if not folder.is_dir():
        split = load_test(data, Path(where) if where else None)
        (rows,) = split.inputs.values()
        part = folder.with_suffix(".part")
        part.mkdir(parents=True, exist_ok=True)
        for number, (row, label) in enumerate(zip(rows[:_COUNT], split.labels_N[:_COUNT], strict=True)):
            pixels = row[0] if len(row) == 1 else np.ascontiguousarray(row.transpose(1, 2, 0))
            Image.fromarray(pixels).save(part / f"{number:05d}-{label}.png", optimize=True)
        part.rename(folder)
    return folder
