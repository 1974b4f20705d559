"""What a drawn section consists of: the drawing, the legend of its colours, and its numbers.

Whoever cannot see a picture, or wants its exact values, reads them in `numbers`, a table that the
page puts below the picture: folded, except where it is the legend as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .drawing import SHAPES
from .numbers import Unit
from .sections import Table

NUM_SERIES = 6  # colours that the style sheet has for series
VALUE_NAMES = {"bytes": "Size", "seconds": "Time", "share": "Share", "count": "Count"}


@dataclass(frozen=True)
class LegendEntry:
    """One series: its label, its number (which decides colour, shape and dashes), and whether it is
    drawn as a line.
    """

    label: str
    series: int
    is_line: bool

    @property
    def style(self) -> str:
        """The class of its colour."""
        return series_style(self.series)

    @property
    def shape(self) -> str:
        """The path of its mark; empty for a circle."""
        return SHAPES[self.series % len(SHAPES)] or ""


@dataclass(frozen=True)
class Picture:
    """A drawn section.

    drawing: the svg. color_scale: a second, small svg that explains its colours. legend: its
    series. numbers: all its values; `swatches` holds a CSS colour, or "", for each of its rows.
    is_open: show `numbers` at once, because they are the legend.
    """

    drawing: Markup
    numbers: Table
    legend: Sequence[LegendEntry] = ()
    color_scale: Markup | None = None
    swatches: Sequence[str] = ()
    is_open: bool = False


def series_style(series: int) -> str:
    """The class that gives a series its colour; colours begin again after the last one."""
    return f"series-{series % NUM_SERIES + 1}"


def value_name(unit: Unit) -> str:
    """The head of a column of such numbers."""
    return VALUE_NAMES.get(unit.kind) or unit.name or "Value"
