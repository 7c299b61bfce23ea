"""What is timed answers as what was judged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from calibration.datasets import load_test
from results.runs import Run, Settings
from results.timed import Contender, Point, answers_at, mean_times, packed
from results.trained import trained
from tests.synthetic import write_data
from training.recipe import load_recipe

RECIPE: dict[str, Any] = {
    "name": "small",
    "model": {"factory": "resnet", "options": {"blocks": 1, "widths": [4, 8, 8], "channels": 1}},
    "exits": {"at": ["groups.0", "groups.1"], "head": "pool"},
    "data": {"dataset": "mnist", "validation": 100, "tune": 200, "calibration": 200},
    "training": {"recipe": "joint", "epochs": 2, "batch_size": 64, "precision": "float32"},
    "cuts": {"codec": "raw", "compression": "none"},
}


def test_points_answer_as_they_were_judged(tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    settings = Settings(data_dir=write_data(tmp_path / "data"), work=tmp_path / "work")
    run = Run(name="small", recipe=recipe)
    found = trained(run, settings)
    points = [
        Point(name=name, thresholds=[0.5, 0.6, 0.0], combined=combined)
        for name, combined in (("alone", False), ("together", True))
    ]
    one = Contender(run=run, exits=found.exits, points=points)
    served, test = packed(one, settings), load_test(load_recipe(recipe).recipe.data, settings.data_dir)
    for point in points:
        labels_N = np.asarray(answers_at(served, point)()(served.inputs(test)))
        judged = found.answers("test", combined=point.combined)
        right_N, cost = judged.outcome(point.thresholds)
        assert 0.4 < cost < 1.0  # some rows leave early, some do not
        assert float(((labels_N == test.labels_N) == right_N).mean()) == pytest.approx(1.0, abs=0.01)

    times = mean_times({"net": one}, settings, whole="net", rounds=2, rows=10)
    assert set(times["rounds"]["net"]) == {"without_exits", "alone", "together"}
    assert all(len(values) == 2 and min(values) > 0 for values in times["rounds"]["net"].values())
