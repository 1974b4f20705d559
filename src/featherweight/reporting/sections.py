"""The sections that a page is made of: frozen dataclasses of plain data, without any drawing.

    Section = Table | Curve | Bars | Scatter | HeatMap | Text | Samples

Every section has a `title`, a `note` (one or two sentences beneath it) and a switch
`half_width`: sections of half width that follow each other stand in two columns where the screen
has room for them. A
`Chapter` puts several sections under one heading; a section outside of a chapter has its title as
its heading.

Numbers may be missing: None, NaN and infinities are shown as not measured, and a curve has a gap
there. Text is shown as it is and never interpreted, except that `backticks` in notes, paragraphs,
facts and key figures mark code. Constructors raise ValueError for lengths that do not match and for
values that a logarithmic axis cannot show.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .numbers import NUMBER, Unit, is_number

Value = float | int | None
Cell = float | int | str | None


@dataclass(frozen=True)
class KeyFigure:
    """One large number.

    label: what it is; value: the number as text; small: a word beside it (a unit, or what it was);
    note: a line beneath.
    """

    label: str
    value: str
    small: str = ""
    note: str = ""


@dataclass(frozen=True)
class Text:
    """Words: paragraphs, then key figures, facts, code and warnings, each only where there are any.

    facts: (name, value) pairs that stand as a list. code: preformatted text.
    warnings: points that a reader must not overlook; the head of the page counts the warnings of
        all its sections and links to the first section that has some.
    """

    title: str
    note: str = ""
    paragraphs: Sequence[str] = ()
    figures: Sequence[KeyFigure] = ()
    facts: Sequence[tuple[str, str]] = ()
    code: str = ""
    warnings: Sequence[str] = ()
    half_width: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    name: its head; a line break in it is kept.
    unit: how its numbers are written; None for a column of text.
    align: "right" for text that reads like a number, such as an interval. Numbers always are.
    meter: a bar before each number, in proportion to the largest of the column.
    code: text in a monospaced font, such as names of layers.
    """

    name: str
    unit: Unit | None = None
    align: Literal["left", "right"] = "left"
    meter: bool = False
    code: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell of a row names it.

    rows: one sequence a row with one cell a column: text, or a number for a column with a unit.
    sortable: a click on a column's head sorts by it (with JavaScript); missing numbers come last.
    first_rows: fold the table to so many rows until the reader asks for all; None shows all.
    row_noun: what the rows are, in the plural, for the button that unfolds them.
    full_width: for many columns: lines do not wrap, and the table may grow into the right margin.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    sortable: bool = True
    first_rows: int | None = None
    row_noun: str = "rows"
    full_width: bool = False
    half_width: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            _check_length(f"a row of the table {self.title!r}", len(row), len(self.columns))


@dataclass(frozen=True)
class Axis:
    """One axis of a curve or a scatter.

    label: what is measured; the unit's name follows it. log: logarithmic. zero: the axis begins at
    0 rather than near the smallest value.
    """

    label: str
    unit: Unit = NUMBER
    log: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a curve: values `y` at increasing positions `x`, and, where both ends are
    numbers, a band from `low` to `high`.
    """

    label: str
    x: Sequence[Value]
    y: Sequence[Value]
    low: Sequence[Value] = ()
    high: Sequence[Value] = ()

    def __post_init__(self) -> None:
        _check_length(f"y of the line {self.label!r}", len(self.y), len(self.x))
        if self.low or self.high:
            for name in ("low", "high"):
                num_values = len(getattr(self, name))
                _check_length(f"{name} of the line {self.label!r}", num_values, len(self.x))


@dataclass(frozen=True)
class Curve:
    """Lines over one pair of axes, such as a loss over steps.

    lines: drawn in the order given, each in its own colour and dash pattern.
    """

    title: str
    lines: Sequence[Line]
    x: Axis
    y: Axis
    note: str = ""
    half_width: bool = False

    def __post_init__(self) -> None:
        _check_log(self.title, self.x, (value for line in self.lines for value in line.x))
        _check_log(
            self.title, self.y, (v for line in self.lines for v in (*line.y, *line.low, *line.high))
        )


@dataclass(frozen=True)
class Points:
    """One group of points of a scatter.

    x, y: positions; `y` stays empty for a scatter with one axis.
    names: what each point is, shown when pointed at, and beside the mark where there is room.
    low, high: ends of an interval of y, drawn as whiskers.
    connect: draw a line through the points in order of x, as for a Pareto frontier.
    """

    label: str
    x: Sequence[Value]
    y: Sequence[Value] = ()
    names: Sequence[str] = ()
    low: Sequence[Value] = ()
    high: Sequence[Value] = ()
    connect: bool = False

    def __post_init__(self) -> None:
        for name in ("y", "names", "low", "high"):
            num_values = len(getattr(self, name))
            if num_values:
                _check_length(f"{name} of the points {self.label!r}", num_values, len(self.x))
        _check_length(f"high of the points {self.label!r}", len(self.high), len(self.low))


@dataclass(frozen=True)
class ReferenceLine:
    """A position on the x axis that all points are compared with, such as their mean: a line with a
    label, and a band where its interval is known.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    interval_name: str = "interval"


@dataclass(frozen=True)
class Scatter:
    """Points over two axes; or over one, stacked where they would touch, when `y` is None.

    reference: a vertical line with a band behind the points.
    """

    title: str
    groups: Sequence[Points]
    x: Axis
    y: Axis | None = None
    reference: ReferenceLine | None = None
    note: str = ""
    half_width: bool = False

    def __post_init__(self) -> None:
        _check_log(self.title, self.x, (value for group in self.groups for value in group.x))
        for group in self.groups if self.y is not None else ():
            _check_length(f"y of the points {group.label!r}", len(group.y), len(group.x))
        if self.y is not None:
            _check_log(
                self.title, self.y, (v for g in self.groups for v in (*g.y, *g.low, *g.high))
            )


@dataclass(frozen=True)
class Part:
    """A part of a stacked bar.

    tone: "tint" for shades of the accent colour in the order of the parts, "contrast" for a colour
    of its own, "faint" for what is not worth a colour.
    """

    label: str
    value: float
    tone: Literal["tint", "contrast", "faint"] = "tint"


@dataclass(frozen=True)
class Bar:
    """One bar: a `value`, or the sum of `parts` when there are any; None was not measured.

    low, high: the ends of its interval. tone: "quiet" for what the other bars are compared with.
    """

    label: str
    value: Value = None
    low: Value = None
    high: Value = None
    parts: Sequence[Part] = ()
    tone: Literal["accent", "quiet"] = "accent"

    @property
    def length(self) -> float | None:
        """The value, or the sum of the parts; None when it was not measured."""
        if self.parts:
            return float(sum(part.value for part in self.parts))
        return float(self.value) if is_number(self.value) else None


@dataclass(frozen=True)
class Bars:
    """Bars on one scale, with their intervals; bars may be stacked of parts.

    noun: what the bars are, for the head of the table that holds their numbers. The table of
        stacked bars is always open, because it is also the legend of their colours.
    enlarge_last: draw the last bar once more over the full width, which shows its parts when it is
        short in comparison with the others.
    dots: draw a dot on its interval instead of a bar, on a scale that need not begin at 0.
    compact: labels left of the bars rather than above, for many bars.
    interval_name: what the intervals are, such as "95 % interval".
    numbers_note: the caption of the table of numbers.
    """

    title: str
    bars: Sequence[Bar]
    unit: Unit = NUMBER
    noun: str = "Bar"
    note: str = ""
    numbers_note: str = ""
    enlarge_last: bool = False
    dots: bool = False
    compact: bool = False
    interval_name: str = "interval"
    half_width: bool = False


@dataclass(frozen=True)
class ColumnBars:
    """Bars over the columns of a heat map: one value a column, in its own unit.

    label: what is measured, in one or two lines.
    hint: words behind a value when a bar is pointed at, such as "nats with only this block
        compressed".
    """

    label: str
    values: Sequence[Value]
    unit: Unit = NUMBER
    hint: str = ""


@dataclass(frozen=True)
class HeatMap:
    """A grid of cells, coloured from faint to full by value; a missing value is a hollow cell.

    rows, columns: labels; row_noun, column_noun: what they are, like "layer" and "block".
    values: one sequence a row with one value a column. blanks: (row, column) of cells that do not
        exist and are left out, such as a layer that only some blocks have.
    label: what the colours mean, for the legend. The colours are logarithmic when the values span
        more than a factor of eight.
    bars: bars over the columns.
    hints: by (row, column): the name of a cell, in place of its labels.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[Value]]
    label: str
    unit: Unit = NUMBER
    row_noun: str = "row"
    column_noun: str = "column"
    bars: ColumnBars | None = None
    blanks: Collection[tuple[int, int]] = ()
    hints: Mapping[tuple[int, int], str] | None = None
    note: str = ""
    half_width: bool = False

    def __post_init__(self) -> None:
        name = f"the heat map {self.title!r}"
        _check_length(f"rows of {name}", len(self.values), len(self.rows))
        for row in self.values:
            _check_length(f"a row of {name}", len(row), len(self.columns))
        if self.bars is not None:
            _check_length(f"{self.bars.label!r}", len(self.bars.values), len(self.columns))


@dataclass(frozen=True)
class Sample:
    """One question with one answer for each of the names in `Samples`."""

    question: str
    answers: Sequence[str]


@dataclass(frozen=True)
class Samples:
    """Texts to be read side by side: the same question to several models.

    names: who answered, in the order of the answers; the last one is set off by the accent colour.
    """

    title: str
    names: Sequence[str]
    samples: Sequence[Sample]
    note: str = ""
    half_width: bool = False

    def __post_init__(self) -> None:
        for sample in self.samples:
            _check_length(f"answers of {self.title!r}", len(sample.answers), len(self.names))


Section = Table | Curve | Bars | Scatter | HeatMap | Text | Samples


@dataclass(frozen=True)
class Chapter:
    """Several sections under one heading, with an introduction."""

    title: str
    sections: Sequence[Section]
    note: str = ""


def _check_length(name: str, length: int, expected_length: int) -> None:
    if length != expected_length:
        raise ValueError(f"{name}: {length} values, where there should be {expected_length}")


def _check_log(title: str, axis: Axis, values: Iterable[Any]) -> None:
    if axis.log and any(is_number(value) and value <= 0 for value in values):
        raise ValueError(f"{title!r}: the logarithmic axis {axis.label!r} shows no value <= 0")
