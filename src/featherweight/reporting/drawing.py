"""Inline SVG that keeps its text size at every width: horizontal positions in percent, vertical
ones in pixels.

A drawing with a viewBox shrinks its labels with it, until a telephone shows none of them. Here the
svg element is as wide as its column, `x` and `width` are percentages of that, and text stays at the
page's size; the gutter left of it, for labels of rows, is a CSS margin that labels reach into with
negative positions. Paths cannot have percentages: they lie in a nested svg that is stretched, with
strokes that are not. Colours are CSS classes, because light, dark and print are the page's affair.

A drawing is built as an element tree and serialised at the end, so names that come from a model's
files are escaped by construction. Every drawing has a title and a description, which is what a
screen reader says instead of it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

GLYPH_WIDTH = 7.4  # pixels of an average character of a label
# Shapes of a mark by series, in pixels around its centre; None is a circle.
SHAPES = (None, "M-5-5h10v10h-10z", "M0-6.5L6.5 0 0 6.5-6.5 0z", "M0-6.2L6.2 5H-6.2z")
RADIUS = 5.0
MIN_LABEL_ROOM = 24  # pixels that half a label of an axis may need left of the drawing


class Drawing:
    """One svg of `height` pixels, as wide as its column less `gutter` pixels on the left.

    `key` begins the ids of the drawing and must be unique on the page.
    """

    def __init__(
        self, key: str, title: str, description: str, height: float, gutter: float = 0
    ) -> None:
        style = (
            f"margin-left:{_px(gutter)}px;width:calc(100% - {_px(gutter)}px);height:{_px(height)}px"
        )
        ids = f"{key}-title {key}-description"
        self._gutter = gutter
        self.root = ET.Element(
            "svg", {"role": "img", "aria-labelledby": ids, "class": "drawing", "style": style}
        )
        for tag, identity, text in (
            ("title", f"{key}-title", title),
            ("desc", f"{key}-description", description),
        ):
            ET.SubElement(self.root, tag, {"id": identity}).text = text

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        classes: str,
        hint: str = "",
        **attributes: Any,
    ) -> None:
        """A rectangle: `x` and `width` in percent, `y` and `height` in pixels; `hint` is shown when
        it is pointed at, `classes` are those of the style sheet.
        """
        box = {"x": _percent(x), "y": _px(y), "width": _percent(width), "height": _px(height)}
        self._add("rect", classes, hint, **box, **attributes)

    def dot(self, x: float, y: float, classes: str, hint: str = "", radius: float = RADIUS) -> None:
        """A circle: `x` in percent, the rest in pixels."""
        self._add("circle", classes, hint, cx=_percent(x), cy=_px(y), r=_px(radius))

    def mark(self, x: float, y: float, series: int, classes: str, hint: str = "") -> None:
        """A dot in the shape of its series, so that series differ in print and without colours."""
        shape = SHAPES[series % len(SHAPES)]
        if shape is None:
            self.dot(x, y, classes, hint)
            return
        origin = ET.SubElement(
            self.root, "svg", {"x": _percent(x), "y": _px(y), "overflow": "visible"}
        )
        path = ET.SubElement(origin, "path", {"class": classes, "d": shape})
        if hint:
            ET.SubElement(path, "title").text = hint

    def line(self, x1: float, y1: float, x2: float, y2: float, classes: str) -> None:
        """A straight line: x in percent, y in pixels."""
        ends = {"x1": _percent(x1), "y1": _px(y1), "x2": _percent(x2), "y2": _px(y2)}
        self._add("line", classes, "", **ends)

    def path(
        self, points: Sequence[tuple[float, float]], classes: str, close: bool = False
    ) -> None:
        """A line through `points` (percent, pixels), or the area inside of them with `close`."""
        height = max((y for _, y in points), default=0.0) + 1
        plane = ET.SubElement(
            self.root,
            "svg",
            {
                "width": "100%",
                "height": _px(height),
                "viewBox": f"0 0 100 {_px(height)}",
                "preserveAspectRatio": "none",
                "overflow": "visible",
            },
        )
        steps = " L".join(f"{_px(x)} {_px(y)}" for x, y in points)
        ET.SubElement(
            plane,
            "path",
            {
                "class": classes,
                "d": f"M{steps}{'Z' if close else ''}",
                "vector-effect": "non-scaling-stroke",
            },
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str = "start",
        classes: str = "label",
        dx: float = 0,
    ) -> None:
        """A label with its baseline at `y`, moved `dx` pixels from `x` percent."""
        position = {"x": _percent(x), "y": _px(y), "dx": _px(dx), "text-anchor": anchor}
        self._add("text", classes, "", **position).text = text

    def row_label(self, y: float, text: str, classes: str = "label") -> None:
        """A label in the gutter, its baseline at `y`."""
        self.text(0, y, text, "end", classes, -10)

    def axis(self, y: float, marks: Sequence[tuple[float, str]]) -> None:
        """A horizontal axis at `y` with marks at (percent, label); the outermost labels stay inside
        the drawing.
        """
        self.line(0, y, 100, y, "axis")
        for x, label in marks:
            self.line(x, y, x, y + 4, "axis")
            starts_outside = x < 4 and self._gutter < MIN_LABEL_ROOM
            anchor = "start" if starts_outside else "end" if x > 96 else "middle"
            self.text(x, y + 18, label, anchor, "label quiet")

    def markup(self) -> Markup:
        """The svg as text that is safe to put into HTML."""
        return Markup(ET.tostring(self.root, encoding="unicode"))

    def _add(self, tag: str, classes: str, hint: str, **attributes: Any) -> ET.Element:
        names = {key.replace("_", "-"): str(value) for key, value in attributes.items()}
        element = ET.SubElement(self.root, tag, {"class": classes, **names})
        if hint:
            ET.SubElement(element, "title").text = hint
        return element


def gutter_width(labels: Sequence[str]) -> float:
    """Pixels that the longest of `labels` needs as a label of a row."""
    return 14 + GLYPH_WIDTH * max((len(label) for label in labels), default=0)


def _percent(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") + "%"


def _px(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
