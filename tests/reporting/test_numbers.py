"""Numbers carry as many digits as they should, and a missing one is a dash."""

from __future__ import annotations

import math

import pytest

from featherweight.reporting import numbers
from featherweight.reporting.scales import Scale, linear_ticks


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.09911, "0.0991"),
        (21.931, "21.9"),
        (16384, "16,384"),
        (0.0, "0"),
        (1.234e-6, "1.23e-06"),
        (-0.5, "-0.500"),
    ],
)
def test_three_significant_digits(value, text):
    assert numbers.number(value) == text


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "3", True, [1]])
def test_no_number_is_a_dash(value):
    for write in (
        numbers.number,
        numbers.count,
        numbers.percent,
        numbers.size,
        numbers.duration,
        numbers.share,
    ):
        assert write(value) == "–"
    assert (
        numbers.decimal(value, 2) == "–"
        and numbers.interval_ends({"mean": value, "low": 0, "high": 1}) == "–"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (412, "412 bytes"),
        (48_312, "48.3 KB"),
        (68_700_000, "68.7 MB"),
        (999_960_000, "1.0 GB"),
        (14.5e9, "14.5 GB"),
    ],
)
def test_sizes(value, text):
    assert numbers.size(value).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.412, "0.41 s"), (74.9, "74.9 s"), (725, "12 min 5 s"), (12_000, "3 h 20 min"), (0, "0 s")],
)
def test_durations(value, text):
    assert numbers.duration(value).replace("\u00a0", " ") == text


def test_ends_have_the_decimals_of_the_mean():
    assert (
        numbers.interval_ends({"mean": 0.09911, "low": 0.0943, "high": 0.10491})
        == "0.0943 to 0.1049"
    )
    assert (
        numbers.interval_ends({"mean": 0.86, "low": 0.853, "high": 0.87}, as_percent=True).replace(
            "\u00a0", " "
        )
        == "85.3 to 87.0 %"
    )
    assert numbers.share(0.00001).replace("\u00a0", " ") == "< 0.1 %"


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.078, 0.113), (0, 1), (13.2, 27.9), (0.0, 3e-9), (5, 5), (999, 1001), (0, 9.9)],
)
def test_ticks_are_few_round_and_inside(low, high):
    ticks = linear_ticks(low, high)
    assert 1 <= len(ticks) <= 5 and all(low <= t + 1e-12 and t <= high + 1e-12 for t in ticks)


def test_scales_stay_inside_the_drawing():
    assert [Scale(1, 100, log=True)(v) for v in (1, 10, 100, 1000, 0)] == pytest.approx(
        [0, 50, 100, 100, 0]
    )
    assert Scale(2, 2)(2) == 0
