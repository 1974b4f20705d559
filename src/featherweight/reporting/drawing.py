"""Inline SVG that keeps its text size at every width: horizontal positions in percent, vertical
ones in pixels.

A drawing with a viewBox shrinks its labels with it, to nothing on a telephone. Here the svg element
is as wide as its column, `x` and `width` are percentages of that, and text stays at the page's
size; a left gutter for row labels is a CSS margin that labels reach into with negative positions.
Colours are CSS classes, so that light, dark and print are the page's affair.

Built as an element tree and serialised at the end: names that come from a model's files are escaped
by construction. Every drawing has a title and a description, which is what a screen reader says
instead of it.
"""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup


class Drawing:
    """One svg of `height` pixels, as wide as its column less `gutter` pixels on the left; `key` is
    its id.
    """

    def __init__(
        self, key: str, title: str, description: str, height: float, gutter: int = 0
    ) -> None:
        style = f"margin-left:{gutter}px;width:calc(100% - {gutter}px);height:{_px(height)}px"
        names = f"{key}-title {key}-description"
        self.root = ET.Element(
            "svg", {"role": "img", "aria-labelledby": names, "class": "drawing", "style": style}
        )
        for kind, text in (("title", title), ("desc", description)):
            label = "title" if kind == "title" else "description"
            ET.SubElement(self.root, kind, {"id": f"{key}-{label}"}).text = text

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        style: str,
        hint: str = "",
        **more: Any,
    ) -> None:
        """A rectangle:

        `x`, `width` in percent, `y`, `height` in pixels; `hint` is shown when pointed at.
        """
        self._add(
            "rect", style, hint, x=_pc(x), y=_px(y), width=_pc(width), height=_px(height), **more
        )

    def dot(self, x: float, y: float, radius: float, style: str, hint: str = "") -> None:
        """A dot: `x` in percent, the rest in pixels."""
        self._add("circle", style, hint, cx=_pc(x), cy=_px(y), r=_px(radius))

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """A line: x in percent, y in pixels."""
        self._add("line", style, "", x1=_pc(x1), y1=_px(y1), x2=_pc(x2), y2=_px(y2))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str = "start",
        style: str = "label",
        dx: float = 0,
    ) -> None:
        """A label with its baseline at `y`; `dx` pixels to the right of `x` percent."""
        self._add(
            "text", style, "", x=_pc(x), y=_px(y), dx=_px(dx), **{"text-anchor": anchor}
        ).text = text

    def row_label(self, y: float, text: str) -> None:
        """A label in the gutter, its baseline at `y`."""
        self.text(0, y, text, "end", "label", -10)

    def axis(self, y: float, ticks: Sequence[tuple[float, str]]) -> None:
        """A baseline at `y` with ticks at (percent, label); the outermost labels stay inside the
        drawing.
        """
        self.line(0, y, 100, y, "axis")
        for x, label in ticks:
            self.line(x, y, x, y + 4, "axis")
            self.text(
                x, y + 18, label, "start" if x < 4 else "end" if x > 96 else "middle", "label quiet"
            )

    def markup(self) -> Markup:
        """The svg as text that is safe to put into HTML."""
        return Markup(ET.tostring(self.root, encoding="unicode"))

    def _add(self, tag: str, style: str, hint: str, **attributes: Any) -> ET.Element:
        named = {key.replace("_", "-"): str(value) for key, value in attributes.items()}
        element = ET.SubElement(self.root, tag, {"class": style, **named})
        if hint:
            ET.SubElement(element, "title").text = hint
        return element


class Scale:
    """Values to percent of the width, linear or logarithmic, from `low` to `high`."""

    def __init__(self, low: float, high: float, log: bool = False) -> None:
        self.low, self.high, self.log = low, high if high > low else low + (abs(low) or 1.0), log

    def __call__(self, value: float) -> float:
        """Percent of the width, clipped to the drawing."""
        low, high, v = self.low, self.high, value
        if self.log:
            low, high, v = math.log(low), math.log(high), math.log(max(value, low))
        return min(100.0, max(0.0, 100 * (v - low) / (high - low)))


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` round values (1, 2 or 5 x a power of ten apart) that lie in [low, high]."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10 ** math.floor(math.log10(span / most))
    steps = (power * factor for factor in itertools.chain((1, 2, 5), (10, 20, 50)))
    step = next(s for s in steps if math.floor(high / s + 1e-9) - math.ceil(low / s - 1e-9) < most)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _pc(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") + "%"


def _px(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
