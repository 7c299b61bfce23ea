import numpy as np
import pytest

from calibration.hindsight import at_random, oracle, overthinking

#                 destructive, wasted, helped, hopeless, wasted
RIGHT = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 1, 1, 0, 1]], bool)
FLOPS = np.array([1.0, 10.0, 100.0])


def test_overthinking() -> None:
    found = overthinking(RIGHT)
    assert (found["wasted"]["share"], found["destructive"]["share"]) == (0.4, 0.2)
    assert found["exits"] == [
        {"exit": 0, "wasted": 0.2, "destructive": 0.2},
        {"exit": 1, "wasted": 0.2, "destructive": 0.0},
    ]
    low, high = found["wasted"]["interval"]
    assert low < 0.4 < high


def test_the_oracle_leaves_at_the_first_right_exit() -> None:
    found = oracle(RIGHT, FLOPS)
    assert found["accuracy"] == 0.8
    assert found["exit_rates"] == [0.6, 0.2, 0.2]  # the hopeless row leaves where it costs least
    assert found["mean_flops"] == pytest.approx(0.6 * 1 + 0.2 * 10 + 0.2 * 100)


def test_no_choice_at_the_same_rates_beats_the_oracle() -> None:
    rng = np.random.default_rng(0)
    drawn = [RIGHT[rng.permutation([0, 0, 0, 1, 2]), np.arange(5)].mean() for _ in range(4000)]
    expected = at_random(RIGHT, [0.6, 0.2, 0.2])
    assert np.mean(drawn) == pytest.approx(expected, abs=0.02)
    assert expected < oracle(RIGHT, FLOPS)["accuracy"]
