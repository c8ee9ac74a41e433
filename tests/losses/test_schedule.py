"""Schedules from plain data."""

import pytest

from tokenizers_vq.errors import ConfigError
from tokenizers_vq.losses.schedule import Schedule


def values(config, *steps):
    schedule = Schedule.from_config(config, "test")
    return [schedule(step) for step in steps]


def test_a_number_is_constant():
    assert values(0.25, 0, 10**9) == [0.25, 0.25]


def test_a_ramp_is_linear_and_constant_outside():
    ramp = {"from": 3.0, "to": 1.0, "over": 2000, "start": 100}
    assert values(ramp, 0, 100, 600, 1100, 2100, 9999) == [3.0, 3.0, 2.5, 2.0, 1.0, 1.0]


def test_points_are_joined_by_lines():
    points = {"points": [[10, 0.0], [20, 1.0], [40, 0.0]]}
    assert values(points, 0, 10, 15, 20, 30, 50) == [0.0, 0.0, 0.5, 1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    "config",
    [
        "high",
        True,
        None,
        {},
        {"from": 1, "to": 2},
        {"from": 1, "to": 2, "over": 0},
        {"from": 1, "to": 2, "over": 5, "step": 1},
        {"points": []},
        {"points": [[5, 1], [5, 2]]},
        {"points": [[5]]},
    ],
)
def test_another_form_is_refused(config):
    with pytest.raises(ConfigError) as error:
        Schedule.from_config(config, "weight of recon/l1")
    assert str(error.value) == (
        "weight of recon/l1: expected a number, {from, to, over, start} or "
        f"{{points: [[step, value], ...]}}; got {config!r:.80}. Steps must rise."
    )
