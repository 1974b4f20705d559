"""Each picture shows its values where they belong, has their numbers, and survives gaps."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from html_page import Page
from tests.reporting import gallery
from tests.reporting.real import BLOCK_KLS, DOWN_PROJ, FILE, MEAN_KL, OURS, SECONDS, WINDOW_KLS

from featherweight.reporting import Axis, Bar, Bars, Curve, HeatMap, Line, Part, Points, Scatter
from featherweight.reporting.bars import draw_bars
from featherweight.reporting.curves import draw_curve
from featherweight.reporting.heat_maps import draw_heat_map
from featherweight.reporting.scatters import draw_scatter


def elements(picture, tag, classes=None):
    """The attributes of each element of this tag (and with these classes) of the drawing."""
    found = re.findall(rf"<{tag} ([^>]*)>", str(picture.drawing))
    dicts = [dict(re.findall(r'([\w-]+)="([^"]*)"', text)) for text in found]
    return [d for d in dicts if classes is None or d.get("class") == classes]


def percent(text):
    assert text.endswith("%")
    return float(text[:-1])


def numbers_of(picture):
    return [list(row) for row in picture.numbers.rows]


def test_dots_of_one_axis_keep_the_order_and_distances_of_their_values():
    picture = draw_scatter(gallery.windows(), "k")
    dots = elements(picture, "circle")
    assert len(dots) == len(WINDOW_KLS)
    xs = sorted(percent(dot["cx"]) for dot in dots)
    values = sorted(WINDOW_KLS)
    slope = (xs[-1] - xs[0]) / (values[-1] - values[0])
    assert xs == pytest.approx([xs[0] + slope * (v - values[0]) for v in values], abs=0.01)
    (band,) = elements(picture, "rect", "band")
    assert percent(band["width"]) == pytest.approx(
        slope * (MEAN_KL["high"] - MEAN_KL["low"]), abs=0.01
    )
    assert [row[1] for row in numbers_of(picture)] == WINDOW_KLS


def test_dots_that_would_touch_are_stacked():
    picture = draw_scatter(Scatter("s", [Points("", [1.0, 1.0, 1.0, 2.0])], Axis("x")), "k")
    dots = [(dot["cx"], dot["cy"]) for dot in elements(picture, "circle")]
    assert len(set(dots)) == 4


def test_a_frontier_connects_its_points_and_every_point_is_named():
    picture = draw_scatter(gallery.pareto(), "k")
    assert len(elements(picture, "path", "line series-1")) == 1
    assert len(elements(picture, "path", "point series-2")) == 3  # squares: another shape
    assert [entry.label for entry in picture.legend] == ["featherweight", "llama.cpp"]
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", str(picture.drawing))
    assert set(OURS) <= set(texts)
    heights = [float(dot["cy"]) for dot in elements(picture, "circle")]
    assert heights == sorted(heights)  # KL falls from file to file, so points go down


def test_names_do_not_overlap_and_many_points_have_none():
    positions = [1, 1.001, 1.002, 1.003, 1.004, 1.005, 9]
    names = [letter * 20 for letter in "abcdefg"]
    near = Points("p", positions, positions, names=names)
    picture = draw_scatter(Scatter("s", [near], Axis("x"), Axis("y")), "k")
    labels = re.findall(r"<text[^>]*>([a-g]{20})</text>", str(picture.drawing))
    assert 2 <= len(labels) <= 4
    assert all(f"{name}: " in str(picture.drawing) for name in names)
    many = Points("p", list(range(200)), list(range(200)), names=["name"] * 200)
    picture = draw_scatter(Scatter("s", [many], Axis("x"), Axis("y")), "k")
    assert ">name</text>" not in str(picture.drawing)


def test_whiskers_stand_where_the_interval_ends():
    points = Points("p", [1, 2], [10, 20], low=[8, None], high=[12, 21])
    picture = draw_scatter(Scatter("s", [points], Axis("x"), Axis("y")), "k")
    (whisker,) = elements(picture, "line", "whisker series-1")
    assert whisker["x1"] == whisker["x2"] and float(whisker["y1"]) < float(whisker["y2"])
    assert [row[-1] for row in numbers_of(picture)] == ["8.00 to 12.0", "–"]


def test_a_line_goes_through_its_values_and_breaks_where_one_is_missing():
    values = [3.0, 2.0, None, 1.0, 0.5]
    curve = Curve("c", [Line("loss", [0, 1, 2, 3, 4], values)], Axis("step"), Axis("loss"))
    picture = draw_curve(curve, "k")
    paths = elements(picture, "path", "line dash-1 series-1")
    assert [path["d"].count("L") for path in paths] == [1, 1]
    heights = [float(dot["cy"]) for dot in elements(picture, "circle")]
    drops = [heights[0] - heights[1], heights[2] - heights[3]]
    assert drops[0] == pytest.approx(2 * drops[1], rel=1e-3)  # from 3 to 2, and from 1 to 0.5
    assert [row[1] for row in numbers_of(picture)] == values


def test_bands_and_several_lines():
    picture = draw_curve(gallery.errors(), "k")
    assert len(elements(picture, "path", "area series-2")) == 1
    assert len(elements(picture, "path", "line dash-2 series-2")) == 1
    assert [column.name for column in picture.numbers.columns] == [
        "Block",
        "down_proj",
        "up_proj",
        "up_proj, interval",
    ]
    assert [row[1] for row in numbers_of(picture)] == DOWN_PROJ


def test_a_long_curve_has_no_dots_and_a_thinned_table():
    steps = list(range(5000))
    line = Line("loss", steps, [math.exp(-step / 1000) for step in steps])
    picture = draw_curve(Curve("c", [line], Axis("step"), Axis("loss", log=True)), "k")
    assert elements(picture, "circle") == []
    assert len(picture.numbers.rows) == 200 and "25" in picture.numbers.note


def test_bars_are_as_long_as_their_values_say():
    picture = draw_bars(gallery.stages(), "k")
    widths = [percent(bar["width"]) for bar in elements(picture, "rect", "bar")]
    longest = max(SECONDS.values())
    expected = [max(66 * seconds / longest, 0.3) for seconds in SECONDS.values()]
    assert widths == pytest.approx(expected, abs=0.01)
    assert numbers_of(picture) == [[stage, seconds] for stage, seconds in SECONDS.items()]
    assert not picture.is_open


def test_a_stack_adds_up_and_is_enlarged_on_the_full_width():
    picture = draw_bars(gallery.files(), "k")
    parts = [percent(part["width"]) for part in elements(picture, "rect", "part")]
    small, large = parts[:3], parts[3:]
    assert sum(large) == pytest.approx(100, abs=0.01)
    (published,) = elements(picture, "rect", "bar-quiet")
    share = sum(FILE.values()) / gallery.PUBLISHED_BYTES
    assert percent(published["width"]) == 100
    assert sum(small) == pytest.approx(100 * share, abs=0.01)
    assert picture.is_open and len(picture.swatches) == len(picture.numbers.rows) == 5
    assert [bool(swatch) for swatch in picture.swatches] == [False, False, True, True, True]


def test_intervals_of_dots_and_of_bars():
    dots = draw_bars(gallery.perplexities(), "k")
    ranges = elements(dots, "rect", "range")
    centers = [percent(dot["cx"]) for dot in elements(dots, "circle")]
    for interval, center in zip(ranges, centers, strict=True):
        assert percent(interval["x"]) < center < percent(interval["x"]) + percent(interval["width"])
    assert numbers_of(dots)[1] == ["Light", 36.4049, "29.43 to 44.50"]
    bars = draw_bars(Bars("b", [Bar("a", 1.0, 0.5, 2.0), Bar("c", 1.5)]), "k")
    assert len(elements(bars, "line", "whisker")) == 3
    assert percent(elements(bars, "rect", "bar")[1]["width"]) == 75


def test_every_cell_of_a_map_has_the_colour_of_its_value():
    picture = draw_heat_map(gallery.layers(), "k")
    cells = elements(picture, "rect", "cell")
    assert len(cells) == 2 * 30 - 2  # one blank, one that was not measured
    assert len(elements(picture, "rect", "hollow")) == 2
    opacities = {float(cell["fill-opacity"]) for cell in cells}
    assert max(opacities) == 1 and min(opacities) == pytest.approx(0.06)
    bars = elements(picture, "rect", "bar")
    heights = [float(bar["height"]) for bar in bars]
    expected = [78 * kl / max(BLOCK_KLS) for kl in BLOCK_KLS[:-1]]
    assert heights == pytest.approx(expected, abs=0.01)
    assert "log scale" in str(picture.color_scale)
    assert "model.layers.0.mlp.up_proj: 0.0604" in str(picture.drawing)
    assert [row[3] for row in numbers_of(picture)][:3] == DOWN_PROJ[:3]


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_nothing_is_drawn_of_nothing(value):
    line = Line("l", [value, 1], [1, value])
    assert draw_curve(Curve("c", [line], Axis("x"), Axis("y")), "k") is None
    assert draw_scatter(Scatter("s", [Points("p", [value])], Axis("x")), "k") is None
    assert draw_bars(Bars("b", [Bar("a", value)]), "k") is None
    assert draw_heat_map(HeatMap("h", [], [], [], "error"), "k") is None
    hollow = draw_heat_map(HeatMap("h", ["a"], ["b"], [[value]], "error"), "k")
    assert hollow is not None and hollow.color_scale is None


@pytest.mark.parametrize("value", [0.0, 1e-300, 1e300, 5.0])
def test_one_value_has_a_picture(value):
    for picture in (
        draw_curve(Curve("c", [Line("l", [value], [value])], Axis("x"), Axis("y")), "k"),
        draw_scatter(Scatter("s", [Points("p", [value], [value])], Axis("x"), Axis("y")), "k"),
        draw_scatter(Scatter("s", [Points("p", [value])], Axis("x")), "k"),
        draw_bars(Bars("b", [Bar("a", value)]), "k"),
        draw_bars(Bars("b", [Bar("a", value, value, value)], dots=True), "k"),
        draw_bars(Bars("b", [Bar("a", parts=[Part("p", value)])], enlarge_last=True), "k"),
        draw_heat_map(HeatMap("h", ["a"], ["b"], [[value]], "error"), "k"),
    ):
        assert picture is not None and "nan" not in str(picture.drawing)
        Page(str(picture.drawing))


def test_labels_keep_their_size():
    """Text lies outside of the stretched planes, and its positions are in percent and pixels."""
    for picture in (draw_curve(gallery.errors(), "k"), draw_scatter(gallery.pareto(), "k")):
        plane = r'<svg [^>]*preserveAspectRatio="none"[^>]*>(.*?)</svg>'
        assert all("<text" not in inner for inner in re.findall(plane, str(picture.drawing)))
        assert all(text["x"].endswith("%") for text in elements(picture, "text"))


def test_names_of_series_are_text():
    evil = "</svg><script>x()</script>"
    curve = replace(gallery.errors(), lines=[Line(evil, [1, 2], [1, 2])], title=evil)
    assert "<script" not in str(draw_curve(curve, "k").drawing)
