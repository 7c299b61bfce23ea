from typing import Any

import pytest
from pydantic import ValidationError

from common.errors import ConfigError
from tests.training.nets import skipping
from training.cost import costs
from training.exit_weights import weights_for
from training.methods.joint import JointTraining


def test_rules_by_name() -> None:
    network = skipping()
    assert weights_for("equal", network).at(0.3) == (1.0, 1.0, 1.0)
    assert weights_for("heavier-early", network).at(0.3) == pytest.approx((1.0, 0.65, 0.3))
    assert weights_for("lighter-early", network).at(0.3) == (0.3, 0.3, 1.0)
    assert weights_for([0.1, 0.2, 0.0], network).at(1.0) == (0.1, 0.2, 0.0)


def test_the_ramp_ends_at_the_share_of_the_flops() -> None:
    network = skipping()
    ramp = weights_for("ramp", network)
    leaving = costs(network).leaving()
    assert ramp.at(0.0) == (0.01, 0.01, 1.0)
    assert ramp.at(1.0) == pytest.approx([flops / leaving[-1] for flops in leaving])
    assert 0.01 < ramp.at(0.5)[0] < ramp.at(1.0)[0] < ramp.at(1.0)[1] < 1.0


@pytest.mark.parametrize("wrong", ["early", [], [0.0, 0.0], [1.0, -1.0], [float("inf")], ["1"], 3, [True]])
def test_what_are_no_weights(wrong: Any) -> None:
    with pytest.raises(ValidationError, match="It must be equal, heavier-early, lighter-early, ramp or a list"):
        JointTraining(epochs=1, exit_weights=wrong)


def test_one_number_for_each_exit() -> None:
    with pytest.raises(ConfigError, match=r"training\.exit_weights has 2 numbers\. The network has 3 exits"):
        weights_for([1.0, 1.0], skipping())
