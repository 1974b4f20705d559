"""Draws `Bars`: values as lengths from 0, stacked or not, or as dots on their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from .drawing import Drawing, gutter_width
from .numbers import DASH, SHARE, is_number, share
from .pictures import Picture, value_name
from .scales import Scale, finite, fitting_scale
from .sections import Bar, Bars, Cell, Column, Part, Table

# Vertical layout in pixels.
BAR_PITCH, DOT_PITCH, COMPACT_PITCH = 56, 44, 26
BAR_TOP, BAR_HEIGHT = 20, 18
ENLARGED_GAP, ENLARGED_HEIGHT = 42, 36
COMPACT_WIDTH = 66  # percent for the longest compact bar; its value stands behind it
MAX_LABEL = 20  # characters of a compact bar's label
# Percent of the accent colour in the second and in the last tint of a stack; the first has all.
STRONGEST_TINT, FAINTEST_TINT = 62, 20


def draw_bars(section: Bars, key: str) -> Picture | None:
    """The picture of `section`, or None when no bar has a value."""
    bars = [bar for bar in section.bars if bar.length is not None]
    if not bars:
        return None
    if section.dots:
        drawing = _draw_dots(section, bars, key)
    elif section.compact:
        drawing = _draw_compact(section, bars, key)
    else:
        drawing = _draw_long(section, bars, key)
    is_stacked = any(bar.parts for bar in bars)
    numbers, swatches = _stack_numbers(section) if is_stacked else (_numbers(section), [])
    return Picture(drawing.markup(), numbers, swatches=swatches, is_open=is_stacked)


def _draw_long(section: Bars, bars: list[Bar], key: str) -> Drawing:
    """Labels above the bars, values at the right end of the line."""
    bottom = BAR_PITCH * (len(bars) - 1) + BAR_TOP + BAR_HEIGHT
    height = bottom + (ENLARGED_GAP + ENLARGED_HEIGHT if section.enlarge_last else 0)
    drawing = Drawing(key, section.title, _description(section, bars), height)
    scale = Scale(0.0, max(_extent(bars), 1e-300))
    for i, bar in enumerate(bars):
        y = BAR_PITCH * i
        drawing.text(0, y + 12, bar.label)
        drawing.text(100, y + 12, section.unit.text(bar.length), "end", "label strong")
        _draw_bar(drawing, section, bar, scale(bar.length or 0.0), y + BAR_TOP, BAR_HEIGHT)
        _draw_whisker(drawing, bar, scale, y + BAR_TOP + BAR_HEIGHT / 2)
    if section.enlarge_last:
        # Two hairlines open the small bar into the large one.
        top, width = bottom + ENLARGED_GAP, scale(bars[-1].length or 0.0)
        drawing.line(0, bottom + 2, 0, top - 2, "grid")
        drawing.line(width, bottom + 2, 100, top - 2, "grid")
        _draw_bar(drawing, section, bars[-1], 100, top, ENLARGED_HEIGHT)
    return drawing


def _draw_compact(section: Bars, bars: list[Bar], key: str) -> Drawing:
    """Labels left of the bars, values behind them."""
    labels = [
        bar.label if len(bar.label) <= MAX_LABEL else bar.label[: MAX_LABEL - 1] + "…"
        for bar in bars
    ]
    height = COMPACT_PITCH * len(bars)
    drawing = Drawing(key, section.title, _description(section, bars), height, gutter_width(labels))
    scale = Scale(0.0, max(_extent(bars), 1e-300) * 100 / COMPACT_WIDTH)
    for i, (bar, label) in enumerate(zip(bars, labels, strict=True)):
        y, width = COMPACT_PITCH * i, max(scale(bar.length or 0.0), 0.3)
        drawing.row_label(y + 15, label)
        _draw_bar(drawing, section, bar, width, y + 4, 14)
        _draw_whisker(drawing, bar, scale, y + 11)
        end = max([width, *(scale(high) for high in finite([bar.high]))])
        drawing.text(end, y + 15, section.unit.text(bar.length), "start", "label quiet", 8)
    return drawing


def _draw_dots(section: Bars, bars: list[Bar], key: str) -> Drawing:
    """A dot at each value on a bar over its interval, and an axis below."""
    values = [value for bar in bars for value in (bar.length, bar.low, bar.high)]
    scale = fitting_scale(values, margin=0.08)
    height = DOT_PITCH * len(bars) + 46
    drawing = Drawing(key, section.title, _description(section, bars), height)
    for i, bar in enumerate(bars):
        y, suffix = 12 + DOT_PITCH * i, "-quiet" if bar.tone == "quiet" else ""
        drawing.text(0, y, bar.label)
        drawing.text(100, y, section.unit.text(bar.length), "end", "label strong")
        drawing.line(0, y + 16, 100, y + 16, "grid")
        if is_number(bar.low) and is_number(bar.high):
            low, high = scale(bar.low), scale(bar.high)
            hint = f"{section.interval_name} {section.unit.interval(bar.low, bar.high)}"
            drawing.rect(low, y + 12, high - low, 8, f"range{suffix}", hint, rx=4)
        hint = f"{bar.label}: {section.unit.text(bar.length)}"
        drawing.dot(scale(bar.length or 0.0), y + 16, f"dot{suffix}", hint, radius=5.5)
    marks = [(scale(tick), section.unit.tick(tick)) for tick in scale.ticks()]
    drawing.axis(8 + DOT_PITCH * len(bars), marks)
    return drawing


def _draw_bar(
    drawing: Drawing, section: Bars, bar: Bar, width: float, y: float, height: float
) -> None:
    """One bar of `width` percent, by its parts when it has some."""
    if not bar.parts:
        hint = f"{bar.label}: {section.unit.text(bar.length)}"
        drawing.rect(0, y, width, height, "bar-quiet" if bar.tone == "quiet" else "bar", hint)
        return
    total, x = bar.length or 1.0, 0.0
    for part, color in zip(bar.parts, _colors(bar.parts), strict=True):
        part_width = width * part.value / total
        hint = f"{part.label}: {section.unit.text(part.value)}, {share(part.value / total)}"
        drawing.rect(x, y, part_width, height, "part", hint, style=f"fill:{color}")
        x += part_width


def _draw_whisker(drawing: Drawing, bar: Bar, scale: Scale, y: float) -> None:
    """The interval of a bar as a line with end caps."""
    if is_number(bar.low) and is_number(bar.high):
        low, high = scale(bar.low), scale(bar.high)
        drawing.line(low, y, high, y, "whisker")
        for x in (low, high):
            drawing.line(x, y - 4, x, y + 4, "whisker")


def _extent(bars: list[Bar]) -> float:
    """The largest value or end of an interval."""
    return max(finite([*(bar.length for bar in bars), *(bar.high for bar in bars)]))


def _colors(parts: Sequence[Part]) -> list[str]:
    """A CSS colour for each part: the accent colour for the first tint, then fainter ones."""
    num_tints = sum(part.tone == "tint" for part in parts)
    colors, tint = [], 0
    for part in parts:
        if part.tone == "contrast":
            colors.append("var(--contrast)")
        elif part.tone == "faint":
            colors.append("var(--line)")
        elif tint == 0:
            colors.append("var(--accent)")
            tint += 1
        else:
            steps = max(num_tints - 2, 1)
            percent = STRONGEST_TINT - (STRONGEST_TINT - FAINTEST_TINT) * (tint - 1) / steps
            colors.append(f"color-mix(in srgb, var(--accent) {percent:.0f}%, var(--paper))")
            tint += 1
    return colors


def _description(section: Bars, bars: list[Bar]) -> str:
    return "; ".join(f"{bar.label} {section.unit.text(bar.length)}" for bar in bars) + "."


def _numbers(section: Bars) -> Table:
    """One row a bar; with intervals when some bar has one."""
    has_intervals = any(is_number(bar.low) and is_number(bar.high) for bar in section.bars)
    columns = [Column(section.noun), Column(value_name(section.unit), section.unit)]
    rows: list[list[Cell]] = [[bar.label, bar.length] for bar in section.bars]
    if has_intervals:
        columns.append(Column(section.interval_name, align="right"))
        for row, bar in zip(rows, section.bars, strict=True):
            row.append(section.unit.interval(bar.low, bar.high))
    return Table(section.title, columns, rows, section.numbers_note, sortable=False)


def _stack_numbers(section: Bars) -> tuple[Table, list[str]]:
    """One row a bar and one for each of its parts, with the colours of the parts."""
    columns = [
        Column(section.noun),
        Column(value_name(section.unit), section.unit),
        Column("Share", SHARE),
    ]
    rows: list[list[Cell]] = []
    swatches: list[str] = []
    for bar in section.bars:
        rows.append([bar.label, bar.length, "" if bar.length is not None else DASH])
        swatches.append("")
        for part, color in zip(bar.parts, _colors(bar.parts), strict=True):
            rows.append([part.label, part.value, part.value / (bar.length or 1.0)])
            swatches.append(color)
    return Table(section.title, columns, rows, section.numbers_note, sortable=False), swatches
