"""Draws `Scatter`: points over two axes, or over one, where dots that would touch are stacked."""

from __future__ import annotations

from .drawing import GLYPH_WIDTH, RADIUS, Drawing
from .numbers import is_number
from .pictures import LegendEntry, Picture, series_style
from .plot_area import HEIGHT, TOP, PlotArea, axis_label, draw_plot_area, draw_reference
from .scales import Scale, finite, fitting_scale
from .sections import Cell, Column, Points, Scatter, Table

# Layout of a scatter with one axis, in pixels; dots nearer than MIN_DISTANCE percent would touch.
STRIP_TOP, STRIP_BOTTOM, STRIP_HEIGHT, LANE_HEIGHT = 24, 100, 134, 11
MIN_DISTANCE = 2.6
LANES = (0, -1, 1, -2, 2, -3, 3)  # from the middle outwards
# Labels are placed for a plot area of this width in pixels, so that they do not overlap on a
# telephone.
NARROWEST = 290
LABEL_HEIGHT = 14
MAX_NAMES = 24  # a scatter of more points shows no names beside its marks
# Where a name may stand: pixels from the mark, and which end of it is there. The names of connected
# points stand above or below, off the line.
BESIDE_MARK = ((9, 4, "start"), (-9, 4, "end"), (0, -10, "middle"), (0, 19, "middle"))
OFF_LINE = ((6, -9, "start"), (-6, 18, "end"), (-6, -9, "end"), (6, 18, "start"))


def draw_scatter(section: Scatter, key: str) -> Picture | None:
    """The picture of `section`, or None when it has no point."""
    if not any(_points(group, section) for group in section.groups):
        return None
    drawing = _draw_strip(section, key) if section.y is None else _draw_plot(section, key)
    has_label = section.y is not None and bool(section.groups[0].label)
    legend = [LegendEntry(group.label, i, group.connect) for i, group in enumerate(section.groups)]
    return Picture(
        drawing.markup(), _numbers(section), legend if has_label or len(section.groups) > 1 else ()
    )


def _points(group: Points, section: Scatter) -> list[tuple[int, float, float]]:
    """(index, x, y) of the points without missing values; y is 0 for a scatter with one axis."""
    heights = group.y if section.y is not None else [0.0] * len(group.x)
    return [
        (i, float(x), float(y))
        for i, (x, y) in enumerate(zip(group.x, heights, strict=True))
        if is_number(x) and is_number(y)
    ]


def _draw_strip(section: Scatter, key: str) -> Drawing:
    """One row of dots over the x axis."""
    values = finite(x for group in section.groups for x in group.x)
    reference = section.reference
    extent = [*values, *([reference.value] if reference else [])]
    scale = fitting_scale(extent, section.x.log, section.x.zero)
    unit = section.x.unit
    description = (
        f"{len(values)} points from {unit.text(min(values))} to {unit.text(max(values))}"
        f"{f' {unit.name}' if unit.name else ''}"
    )
    if reference:
        ends = unit.interval(reference.low, reference.high)
        description += f"; {reference.label} {unit.text(reference.value)}, {ends}"
    drawing = Drawing(key, section.title, f"{description}.", STRIP_HEIGHT)
    if reference:
        draw_reference(drawing, scale, section.x, reference, STRIP_TOP, STRIP_BOTTOM)
    middle = (STRIP_TOP + STRIP_BOTTOM) / 2
    for x, lane, series, index in _swarm(section, scale):
        group = section.groups[series]
        name = group.names[index] if group.names else group.label
        words = f"{unit.text(group.x[index])} {unit.name}".strip()
        style = f"point {series_style(series)}"
        hint = f"{name}: {words}" if name else words
        drawing.dot(x, middle + LANE_HEIGHT * lane, style, hint, radius=4.5)
    drawing.axis(STRIP_BOTTOM + 8, [(scale(tick), unit.tick(tick)) for tick in scale.ticks()])
    return drawing


def _swarm(section: Scatter, scale: Scale) -> list[tuple[float, int, int, int]]:
    """(percent, lane, group, index) of every point: the lane nearest to the middle in which the dot
    touches no other.
    """
    points = sorted(
        (x, series, index)
        for series, group in enumerate(section.groups)
        for index, x, _ in _points(group, section)
    )
    swarm: list[tuple[float, int, int, int]] = []
    for number, (value, series, index) in enumerate(points):
        x = scale(value)
        near_lanes = {lane for dot_x, lane, _, _ in swarm if x - dot_x < MIN_DISTANCE}
        free_lanes = [lane for lane in LANES if lane not in near_lanes]
        swarm.append((x, free_lanes[0] if free_lanes else number % 7 - 3, series, index))
    return swarm


def _draw_plot(section: Scatter, key: str) -> Drawing:
    """Points, whiskers and connecting lines over two axes."""
    assert section.y is not None
    groups = section.groups
    values_x = finite(x for group in groups for x in group.x)
    values_y = finite(v for group in groups for v in (*group.y, *group.low, *group.high))
    num_points = sum(len(_points(group, section)) for group in groups)
    description = f"{num_points} points; {axis_label(section.y)} over {axis_label(section.x)}."
    axes = (section.x, section.y)
    area = draw_plot_area(key, section.title, description, axes, (values_x, values_y))
    if section.reference:
        draw_reference(area.drawing, area.x, section.x, section.reference, TOP, TOP + HEIGHT)
    for series, group in enumerate(groups):
        points = _points(group, section)
        if group.connect:
            line = [area.position(x, y) for _, x, y in sorted(points, key=lambda point: point[1])]
            area.drawing.path(line, f"line {series_style(series)}")
        for index, x, _ in points:
            if group.low and group.high:
                _draw_whisker(area, x, group.low[index], group.high[index], series)
    for series, group in enumerate(groups):
        for index, x, y in _points(group, section):
            name = group.names[index] if group.names else group.label
            words = f"{section.x.unit.text(x)}, {section.y.unit.text(y)}"
            hint = f"{name}: {words}" if name else words
            area.drawing.mark(*area.position(x, y), series, f"point {series_style(series)}", hint)
    _draw_names(area, section)
    return area.drawing


def _draw_whisker(area: PlotArea, x: float, low: object, high: object, series: int) -> None:
    """The vertical interval of a point."""
    if is_number(low) and is_number(high):
        (percent, bottom), (_, top) = area.position(x, low), area.position(x, high)
        area.drawing.line(percent, top, percent, bottom, f"whisker {series_style(series)}")


def _draw_names(area: PlotArea, section: Scatter) -> None:
    """The names of the points beside their marks, each where it covers nothing; a name for which
    there is no room is left to the hint and the table.
    """
    names = [
        (group.names[index], *area.position(x, y), OFF_LINE if group.connect else BESIDE_MARK)
        for group in section.groups
        if group.names
        for index, x, y in _points(group, section)
    ]
    if len(names) > MAX_NAMES:
        return
    # Boxes (left, top, right, bottom) in pixels that are taken, first those of the marks.
    boxes = [_mark_box(x, y) for _, x, y, _ in names]
    for name, x, y, places in names:
        width, center = GLYPH_WIDTH * len(name), x * NARROWEST / 100
        for dx, dy, anchor in places:
            start = center + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (start, y + dy - LABEL_HEIGHT + 3, start + width, y + dy + 3)
            if box[0] < -4 or box[2] > NARROWEST + 4 or any(_overlap(box, b) for b in boxes):
                continue
            area.drawing.text(x, y + dy, name, anchor, "label quiet", dx)
            boxes.append(box)
            break


def _mark_box(x: float, y: float) -> tuple[float, float, float, float]:
    center = x * NARROWEST / 100
    return center - RADIUS, y - RADIUS, center + RADIUS, y + RADIUS


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _numbers(section: Scatter) -> Table:
    """One row a point: its group and name, where there are any, x, y and the interval of y."""
    has_groups = len(section.groups) > 1
    has_names = any(group.names for group in section.groups)
    has_intervals = any(group.low and group.high for group in section.groups)
    columns = [Column("Group")] if has_groups else []
    columns += [Column("Name")] if has_names else []
    columns += [Column(axis_label(section.x), section.x.unit)]
    if section.y is not None:
        columns += [Column(axis_label(section.y), section.y.unit)]
    columns += [Column("Interval", align="right")] if has_intervals and section.y else []
    rows: list[list[Cell]] = []
    for group in section.groups:
        for i, x in enumerate(group.x):
            row: list[Cell] = [group.label] if has_groups else []
            row += [group.names[i] if group.names else ""] if has_names else []
            row += [x] if section.y is None else [x, group.y[i]]
            if has_intervals and section.y is not None:
                has_ends = group.low and group.high
                ends = section.y.unit.interval(group.low[i], group.high[i]) if has_ends else ""
                row.append(ends)
            rows.append(row)
    return Table(section.title, columns, rows, sortable=False)
