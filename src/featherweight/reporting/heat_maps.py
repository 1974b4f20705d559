"""Draws `HeatMap`: one cell a row and column, coloured by value, with bars over the columns.

Bars stand on the same columns as the cells, so that the two can be compared by eye. A bar that was
not measured has a hollow mark, never a length of zero. Colour is the opacity of the accent colour
over the page, from faint to full, which reads the same on white, on black and in print; a second
drawing explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from .drawing import Drawing, gutter_width
from .numbers import is_number
from .pictures import Picture
from .scales import Scale, finite, linear_ticks
from .sections import Cell, Column, ColumnBars, HeatMap, Table

# Vertical layout in pixels.
ROW_HEIGHT, BARS_HEIGHT, BARS_GAP = 20, 84, 14
MIN_GUTTER = 92
LOG_FACTOR = 8  # values that span more are coloured on a logarithmic scale
FAINTEST = 0.06  # opacity of the smallest value
COLOR_STEPS = 32


def draw_heat_map(section: HeatMap, key: str) -> Picture | None:
    """The picture of `section`, or None when it has no cell."""
    if not section.rows or not section.columns:
        return None
    bars = section.bars if section.bars and finite(section.bars.values) else None
    top = BARS_HEIGHT + BARS_GAP if bars else 6
    bottom = top + ROW_HEIGHT * len(section.rows)
    description = f"{len(section.rows)} rows by {len(section.columns)} columns."
    gutter = max(MIN_GUTTER, gutter_width(section.rows))
    drawing = Drawing(key, section.title, description, bottom + 34, gutter)
    if bars:
        _draw_column_bars(drawing, section, bars)
    colors = ColorScale(finite(value for row in section.values for value in row))
    _draw_cells(drawing, section, colors, top)
    step = 1 if len(section.columns) <= 12 else 5 if len(section.columns) <= 60 else 10
    width = 100 / len(section.columns)
    for i in range(0, len(section.columns), step):
        x = (i + 0.5) * width
        drawing.text(x, bottom + 16, section.columns[i], "middle", "label quiet")
    drawing.row_label(bottom + 16, section.column_noun)
    color_scale = _draw_color_scale(section, colors, f"{key}-colors") if colors else None
    return Picture(drawing.markup(), _numbers(section), color_scale=color_scale)


class ColorScale:
    """Values to the opacity of the accent colour, logarithmic when they span more than LOG_FACTOR.

    False when there are no values.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self._is_empty = not values
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        self.log = low > 0 and high / low > LOG_FACTOR
        self.low, self.high = (low, high) if self.log else (min(low, 0.0), high)
        self.scale = Scale(self.low, self.high, self.log)

    def __bool__(self) -> bool:
        return not self._is_empty

    def __call__(self, value: float) -> float:
        """Opacity between FAINTEST and 1."""
        return FAINTEST + (1 - FAINTEST) * self.scale(value) / 100

    def middle(self) -> float:
        """The value at half of the scale."""
        return float((self.low * self.high) ** 0.5) if self.log else (self.low + self.high) / 2


def _draw_column_bars(drawing: Drawing, section: HeatMap, bars: ColumnBars) -> None:
    """Bars over the columns, with the label of their scale in the gutter."""
    largest = max(finite(bars.values)) or 1.0
    width = 100 / len(section.columns)
    for i, line in enumerate(bars.label.split("\n")[:2]):
        drawing.row_label(12 + 16 * i, line)
    drawing.row_label(BARS_HEIGHT, "0")
    for tick in linear_ticks(0, largest, 3)[1:]:
        y = BARS_HEIGHT - (BARS_HEIGHT - 6) * tick / largest
        drawing.line(0, y, 100, y, "grid")
        if y > 38:  # below the two lines of the label
            drawing.row_label(y + 4, bars.unit.tick(tick))
    name = " ".join(bars.label.split())
    for i, value in enumerate(bars.values):
        column = f"{section.column_noun} {section.columns[i]}"
        if is_number(value):
            height = max(1.0, (BARS_HEIGHT - 6) * value / largest)
            hint = f"{column}, {name}: {bars.unit.text(value)} {bars.hint}".strip()
            drawing.rect(i * width, BARS_HEIGHT - height, 0.86 * width, height, "bar", hint)
        else:
            hint = f"{column}: not measured"
            drawing.rect(i * width, BARS_HEIGHT - 3, 0.86 * width, 3, "hollow", hint)
    drawing.line(0, BARS_HEIGHT, 100, BARS_HEIGHT, "axis")


def _draw_cells(drawing: Drawing, section: HeatMap, colors: ColorScale, top: float) -> None:
    width = 100 / len(section.columns)
    for row, (label, values) in enumerate(zip(section.rows, section.values, strict=True)):
        y = top + ROW_HEIGHT * row
        drawing.row_label(y + 14, label)
        for column, value in enumerate(values):
            if (row, column) in section.blanks:
                continue
            default_name = f"{label}, {section.column_noun} {section.columns[column]}"
            name = (section.hints or {}).get((row, column), default_name)
            style, opacity, text = "hollow", 1.0, "not measured"
            if is_number(value):
                style, opacity, text = "cell", colors(value), section.unit.text(value)
            box = (width * column, y, 0.94 * width, ROW_HEIGHT - 2)
            drawing.rect(*box, style, f"{name}: {text}", fill_opacity=f"{opacity:.3f}")


def _draw_color_scale(section: HeatMap, colors: ColorScale, key: str) -> Markup:
    """The colours from the smallest to the largest value."""
    label = section.label + (", log scale" if colors.log else "")
    low, middle, high = (
        _scale_label(section, v) for v in (colors.low, colors.middle(), colors.high)
    )
    drawing = Drawing(key, label, f"From {low} to {high}.", 48)
    drawing.text(0, 12, label, "start", "label quiet")
    for i in range(COLOR_STEPS):
        opacity = FAINTEST + (1 - FAINTEST) * i / (COLOR_STEPS - 1)
        x, width = 100 * i / COLOR_STEPS, 100 / COLOR_STEPS
        drawing.rect(x, 18, width, 10, "cell", fill_opacity=f"{opacity:.3f}")
    for x, text, anchor in ((0, low, "start"), (50, middle, "middle"), (100, high, "end")):
        drawing.text(x, 44, text, anchor, "label quiet")
    return drawing.markup()


def _scale_label(section: HeatMap, value: float) -> str:
    """`value` with two significant digits."""
    if section.unit.kind == "number":
        return replace(section.unit, digits=2).text(value)
    return section.unit.tick(float(f"{value:.2g}"))


def _numbers(section: HeatMap) -> Table:
    """One row a column of the map, because there are more columns than rows as a rule."""
    columns = [Column(section.column_noun.capitalize())]
    if section.bars:
        columns.append(Column(section.bars.label, section.bars.unit))
    columns += [Column(label, section.unit) for label in section.rows]
    rows: list[list[Cell]] = []
    for i, column in enumerate(section.columns):
        row: list[Cell] = [column]
        if section.bars:
            row.append(section.bars.values[i])
        rows.append(row + [values[i] for values in section.values])
    return Table(section.title, columns, rows, section.label, full_width=True)
