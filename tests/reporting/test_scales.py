"""Marks of an axis are few, round and on the scale; scales hold what they show."""

from __future__ import annotations

import pytest

from featherweight.reporting.scales import Scale, fitting_scale, linear_ticks, log_ticks


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.078, 0.113), (0, 1), (13.2, 27.9), (0.0, 3e-9), (5, 5), (999, 1001), (0, 9.9), (-3, 7)],
)
def test_ticks_are_few_round_and_inside(low, high):
    ticks = linear_ticks(low, high)
    assert 1 <= len(ticks) <= 5 and all(low <= t + 1e-12 and t <= high + 1e-12 for t in ticks)


def test_ticks_of_tiny_values_are_round():
    assert linear_ticks(0, 5e-13) == [0, 2e-13, 4e-13]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1, 1000, [1, 10, 100, 1000]),
        (1, 100, [1, 3, 10, 30, 100]),
        (3, 70, [5, 10, 20, 50]),
        (0.01, 0.02, [0.01, 0.02]),
        (1e-6, 3, [1e-6, 1e-4, 1e-2, 1]),
        (0.9, 1.1, [0.9, 0.95, 1.0, 1.05, 1.1]),
    ],
)
def test_logarithmic_ticks(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize("exponent", range(-20, 20, 3))
def test_logarithmic_ticks_are_few_and_inside_over_any_span(exponent):
    for span in (1.5, 30, 1e4, 1e12):
        low, high = 10.0**exponent, 10.0**exponent * span
        ticks = log_ticks(low, high)
        assert 1 <= len(ticks) <= 5
        assert all(low * 0.999 <= tick <= high * 1.001 for tick in ticks)


def test_scales_stay_inside_the_drawing():
    log = Scale(1, 100, log=True)
    assert [log(v) for v in (1, 10, 100, 1000, 0)] == pytest.approx([0, 50, 100, 100, 0])
    assert Scale(2, 2)(2) == 0


def test_a_fitting_scale_holds_its_values_and_starts_at_zero_when_asked():
    scale = fitting_scale([10.0, 20.0, None, float("nan")])
    assert scale.low < 10 and scale.high > 20
    assert fitting_scale([10, 20], zero=True).low == 0
    assert fitting_scale([0.1, 20]).low == 0
    assert fitting_scale([-5, 20]).low < -5
    assert fitting_scale([0.001, 1], log=True).low > 0
    assert fitting_scale([]).high > 0
    assert 0 < fitting_scale([3.0])(3.0) < 100
