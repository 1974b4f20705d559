"""Draws `Curve`: lines over two axes, with bands where an interval is known and gaps where a value
is missing.
"""

from __future__ import annotations

from .numbers import is_number
from .pictures import LegendEntry, Picture, series_style
from .plot_area import PlotArea, axis_label, draw_plot_area
from .scales import finite
from .sections import Cell, Column, Curve, Line, Table

MAX_DOTS = 40  # points of a line up to which each of them has a dot that can be pointed at
MAX_ROWS = 200  # rows of the table of numbers; a longer curve is thinned evenly
NUM_DASHES = 4  # dash patterns that the style sheet has

Point = tuple[float, float]


def draw_curve(section: Curve, key: str) -> Picture | None:
    """The picture of `section`, or None when no line has a point."""
    if not any(_stretches(line) for line in section.lines):
        return None
    values_x = finite(x for line in section.lines for x in line.x)
    values_y = finite(v for line in section.lines for v in (*line.y, *line.low, *line.high))
    area = draw_plot_area(
        key, section.title, _description(section), (section.x, section.y), (values_x, values_y)
    )
    for series, line in enumerate(section.lines):
        for band in _bands(line):
            outline = [area.position(*point) for point in band]
            area.drawing.path(outline, f"area {series_style(series)}", close=True)
    for series, line in enumerate(section.lines):
        _draw_line(area, section, line, series)
    is_labelled = len(section.lines) > 1 or bool(section.lines[0].label)
    legend = [LegendEntry(line.label, i, True) for i, line in enumerate(section.lines)]
    return Picture(area.drawing.markup(), _numbers(section), legend if is_labelled else ())


def _draw_line(area: PlotArea, section: Curve, line: Line, series: int) -> None:
    """The line in its stretches without gaps, and dots when there are few points."""
    for stretch in _stretches(line):
        points = [area.position(*point) for point in stretch]
        if len(points) > 1:
            style = f"line dash-{series % NUM_DASHES + 1} {series_style(series)}"
            area.drawing.path(points, style)
        if len(points) == 1 or len(line.x) <= MAX_DOTS:
            for (x, y), position in zip(stretch, points, strict=True):
                values = f"{section.x.unit.text(x)}: {section.y.unit.text(y)}"
                hint = f"{line.label}, {values}" if line.label else values
                area.drawing.dot(*position, f"dot {series_style(series)}", hint, radius=3)


def _stretches(line: Line) -> list[list[Point]]:
    """The points of a line, divided where a value is missing."""
    stretches: list[list[Point]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if is_number(x) and is_number(y):
            stretches[-1].append((x, y))
        elif stretches[-1]:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]


def _bands(line: Line) -> list[list[Point]]:
    """Outlines of the band of a line, divided where an end is missing."""
    if not line.low or not line.high:
        return []
    bands: list[list[tuple[float, float, float]]] = [[]]
    for x, low, high in zip(line.x, line.low, line.high, strict=True):
        if is_number(x) and is_number(low) and is_number(high):
            bands[-1].append((x, low, high))
        elif bands[-1]:
            bands.append([])
    return [
        [(x, high) for x, _, high in band] + [(x, low) for x, low, _ in reversed(band)]
        for band in bands
        if len(band) > 1
    ]


def _description(section: Curve) -> str:
    parts = []
    for line in section.lines:
        points = [point for stretch in _stretches(line) for point in stretch]
        if points:
            (x0, y0), (x1, y1) = points[0], points[-1]
            unit_x, unit_y = section.x.unit, section.y.unit
            parts.append(
                f"{line.label or section.y.label} goes from {unit_y.text(y0)} at {unit_x.text(x0)} "
                f"to {unit_y.text(y1)} at {unit_x.text(x1)}"
            )
    return "; ".join(parts) + "."


def _numbers(section: Curve) -> Table:
    """One row a position, one column a line; a band adds a column with its ends."""
    positions = sorted({x for line in section.lines for x in finite(line.x)})
    step = -(-len(positions) // MAX_ROWS)
    columns = [Column(axis_label(section.x), section.x.unit)]
    by_position: list[dict[float, tuple[Cell, ...]]] = []
    for line in section.lines:
        name = line.label or axis_label(section.y)
        columns.append(Column(name, section.y.unit))
        entries: dict[float, tuple[Cell, ...]] = {}
        ends = [
            section.y.unit.interval(low, high)
            for low, high in zip(line.low, line.high, strict=True)
        ]
        if ends:
            columns.append(Column(f"{name}, interval", align="right"))
        for i, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
            if is_number(x):
                entries[x] = (y, ends[i]) if ends else (y,)
        by_position.append(entries)
    rows: list[list[Cell]] = []
    for x in positions[::step]:
        row: list[Cell] = [x]
        for line, entries in zip(section.lines, by_position, strict=True):
            row += entries.get(x, (None, "") if line.low and line.high else (None,))
        rows.append(row)
    note = f"Every {step} positions of {len(positions)}." if step > 1 else ""
    return Table(section.title, columns, rows, note, sortable=False)
