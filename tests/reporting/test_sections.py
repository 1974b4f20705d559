"""Sections are plain data whose lengths fit, and refuse what an axis cannot show."""

from __future__ import annotations

import pytest

from featherweight.reporting import (
    Axis,
    Bar,
    Column,
    ColumnBars,
    Curve,
    HeatMap,
    Line,
    Part,
    Points,
    Sample,
    Samples,
    Scatter,
    Table,
)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Table("t", [Column("a"), Column("b")], [["only one"]]),
        lambda: Line("l", [1, 2], [1]),
        lambda: Line("l", [1, 2], [1, 2], low=[1]),
        lambda: Line("l", [1, 2], [1, 2], low=[1, 2]),
        lambda: Points("p", [1, 2], [1]),
        lambda: Points("p", [1, 2], [1, 2], names=["a"]),
        lambda: Points("p", [1, 2], [1, 2], low=[0, 1]),
        lambda: Scatter("s", [Points("p", [1])], Axis("x"), Axis("y")),
        lambda: HeatMap("h", ["a"], ["b"], [[1, 2]], "error"),
        lambda: HeatMap("h", ["a", "c"], ["b"], [[1]], "error"),
        lambda: HeatMap("h", ["a"], ["b"], [[1]], "error", bars=ColumnBars("KL", [1, 2])),
        lambda: Samples("s", ["A", "B"], [Sample("why?", ["because"])]),
    ],
)
def test_lengths_must_match(make):
    with pytest.raises(ValueError, match="where there should be"):
        make()


def test_a_logarithmic_axis_needs_positive_values():
    log = Axis("KL", log=True)
    with pytest.raises(ValueError, match="'KL'"):
        Curve("c", [Line("l", [1, 2], [0.1, 0.0])], Axis("step"), log)
    with pytest.raises(ValueError, match="'KL'"):
        Curve("c", [Line("l", [1], [0.1], low=[-0.1], high=[0.2])], Axis("step"), log)
    with pytest.raises(ValueError, match="'KL'"):
        Scatter("s", [Points("p", [0.0])], log)
    Curve("c", [Line("l", [1, 2], [0.1, None])], Axis("step"), log)
    Scatter("s", [Points("p", [1, 2], [float("nan"), 3])], Axis("x"), log)


def test_a_bar_is_as_long_as_its_parts():
    assert Bar("b", parts=[Part("codes", 3), Part("scales", 0.5)]).length == 3.5
    assert Bar("b", 2).length == 2.0
    assert Bar("b").length is None and Bar("b", float("inf")).length is None
