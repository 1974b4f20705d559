"""Numbers carry as many digits as they should, and a missing one is a dash."""

from __future__ import annotations

import math

import pytest

from featherweight.reporting import BYTES, COUNT, SECONDS, SHARE, Unit, numbers


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
    ("unit", "value", "text", "tick"),
    [
        (Unit(), 1234.5, "1,234", "1,234.5"),
        (Unit(), 0.00002, "2.00e-05", "2e-05"),
        (Unit(decimals=2), 21.931, "21.93", "21.931"),
        (COUNT, 16384, "16,384", "16,384"),
        (SHARE, 0.5, "50.0 %", "50 %"),
        (Unit("share", decimals=0), 0.5, "50 %", "50 %"),
        (BYTES, 50e6, "50.0 MB", "50 MB"),
        (SECONDS, 20, "20.0 s", "20 s"),
        (SECONDS, 600, "10 min 0 s", "10 min 0 s"),
    ],
)
def test_units_write_cells_and_ticks(unit, value, text, tick):
    assert unit.text(value).replace("\u00a0", " ") == text
    assert unit.tick(value).replace("\u00a0", " ") == tick
    assert unit.text(None) == "–" and unit.interval(None, value) == "–"
    assert unit.interval(value, value) == f"{unit.text(value)} to {unit.text(value)}"
