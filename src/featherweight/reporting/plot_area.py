"""What curves and scatters are drawn on: two axes with their marks, and positions between them.

The label of the vertical axis stands above it, written like any other line, because turned text is
hard to read; that of the horizontal axis stands below its right end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .drawing import Drawing, gutter_width
from .scales import Scale, fitting_scale
from .sections import Axis, ReferenceLine

# Vertical layout in pixels.
TOP, HEIGHT, BOTTOM = 30, 240, 48
X_TICKS, Y_TICKS = 5, 6


@dataclass(frozen=True)
class PlotArea:
    """A drawing with its two scales; `position` maps a pair of values to (percent, pixels)."""

    drawing: Drawing
    x: Scale
    y: Scale

    def position(self, x: float, y: float) -> tuple[float, float]:
        return self.x(x), TOP + HEIGHT * (1 - self.y(y) / 100)


def draw_plot_area(
    key: str,
    title: str,
    description: str,
    axes: tuple[Axis, Axis],
    values: tuple[Iterable[Any], Iterable[Any]],
) -> PlotArea:
    """An empty plot area whose axes (horizontal, vertical) hold all `values` (of x, of y)."""
    x = fitting_scale(values[0], axes[0].log, axes[0].zero, margin=0.03)
    y = fitting_scale(values[1], axes[1].log, axes[1].zero)
    marks = [(tick, axes[1].unit.tick(tick)) for tick in y.ticks(Y_TICKS)]
    gutter = gutter_width([label for _, label in marks])
    drawing = Drawing(key, title, description, TOP + HEIGHT + BOTTOM, gutter)
    drawing.text(0, 12, axis_label(axes[1]), "start", "label quiet", -gutter)
    for tick, label in marks:
        height = TOP + HEIGHT * (1 - y(tick) / 100)
        drawing.line(0, height, 100, height, "grid")
        drawing.row_label(height + 4, label, "label quiet")
    drawing.axis(TOP + HEIGHT, [(x(tick), axes[0].unit.tick(tick)) for tick in x.ticks(X_TICKS)])
    drawing.text(100, TOP + HEIGHT + 40, axis_label(axes[0]), "end", "label quiet")
    return PlotArea(drawing, x, y)


def draw_reference(
    drawing: Drawing, scale: Scale, axis: Axis, reference: ReferenceLine, top: float, bottom: float
) -> None:
    """The line of `reference` with its band, and its label above `top`."""
    x = scale(reference.value)
    if reference.low is not None and reference.high is not None:
        low, high = scale(reference.low), scale(reference.high)
        ends = axis.unit.interval(reference.low, reference.high)
        hint = f"{reference.interval_name}: {ends}"
        drawing.rect(low, top, max(high - low, 0.3), bottom - top, "band", hint)
    drawing.line(x, top, x, bottom, "reference")
    anchor = "start" if x < 12 else "end" if x > 88 else "middle"
    drawing.text(x, top - 10, f"{reference.label} {axis.unit.text(reference.value)}", anchor)


def axis_label(axis: Axis) -> str:
    """The label with its unit's name and whether the axis is logarithmic."""
    words = [axis.label, axis.unit.name, "log scale" if axis.log else ""]
    return ", ".join(word for word in words if word)
