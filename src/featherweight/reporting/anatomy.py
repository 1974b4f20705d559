"""The model laid out, one cell a layer: blocks across, the linears of a block down, coloured by
error.

Above the cells stand bars of the KL that each block costs when it alone is compressed, on the same
columns, so that one sees whether a dark column matters. A block that was not measured has a hollow
mark, never a bar of zero. Colour is the opacity of one accent over the page, from faint to full,
which reads the same on white and on black and in print; its scale is drawn by `legend`, logarithmic
when errors span more than a factor of eight.

Experts share a cell, and the worst of them is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from . import figures
from .drawing import Drawing, Scale, nice_ticks
from .reading import Place, place, ranked_by, records

ROW = 20
GUTTER = 92
BARS = 84
MAX_ROWS = 40


def anatomy(results: Mapping[str, Any]) -> Markup | None:
    """Bars of KL with one block compressed, over a strip of blocks x linears coloured by error."""
    layers = records(results, "layers")
    placed = [
        (found, layer)
        for layer in layers
        if (found := place(str(layer.get("name", "")))) is not None
    ]
    if not placed:
        return None
    kinds = list(dict.fromkeys(found.within for found, _ in placed))[:MAX_ROWS]
    blocks = sorted({found.block for found, _ in placed})
    kls = {found.block: layer.get("kl_block") for found, layer in placed}
    top = BARS + 14 if any(map(figures.is_number, kls.values())) else 6
    told = f"{len(blocks)} blocks by {len(kinds)} linear layers; the table below holds the same numbers."
    height = top + ROW * len(kinds) + 34
    drawing = Drawing("anatomy", "Error of every layer and KL of every block", told, height, GUTTER)
    if top > BARS:
        _block_bars(drawing, blocks, kls)
    _cells(drawing, placed, kinds, blocks, top, ranked_by(layers))
    step = 1 if len(blocks) <= 12 else 5 if len(blocks) <= 60 else 10
    width = 100 / len(blocks)
    for i, block in enumerate(blocks):
        if block % step == 0:
            drawing.text(
                (i + 0.5) * width, top + ROW * len(kinds) + 16, str(block), "middle", "label quiet"
            )
    drawing.row_label(top + ROW * len(kinds) + 16, "block")
    return drawing.markup()


def _block_bars(drawing: Drawing, blocks: list[int], kls: Mapping[int, Any]) -> None:
    most = max(kl for kl in kls.values() if figures.is_number(kl)) or 1.0
    width = 100 / len(blocks)
    drawing.row_label(12, "KL of one")
    drawing.row_label(28, "block alone")
    drawing.row_label(BARS, "0")
    for tick in nice_ticks(0, most, 3)[1:]:
        y = BARS - (BARS - 6) * tick / most
        drawing.line(0, y, 100, y, "grid")
        if y > 38:
            drawing.row_label(y + 4, f"{tick:,.6g}")
    for i, block in enumerate(blocks):
        kl = kls[block]
        if figures.is_number(kl):
            height = max(1.0, (BARS - 6) * kl / most)
            hint = f"block {block}: KL {figures.number(kl)} nats with only this block compressed"
            drawing.rect(i * width, BARS - height, 0.86 * width, height, "bar", hint)
        else:
            drawing.rect(
                i * width, BARS - 3, 0.86 * width, 3, "unknown", f"block {block}: not measured"
            )
    drawing.line(0, BARS, 100, BARS, "axis")


def _cells(
    drawing: Drawing,
    placed: list[tuple[Place, Mapping[str, Any]]],
    kinds: list[str],
    blocks: list[int],
    top: float,
    key: str,
) -> None:
    shade = Shade([layer[key] for _, layer in placed if figures.is_number(layer.get(key))])
    cells: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for found, layer in placed:
        cells.setdefault((found.block, found.within), []).append(layer)
    width = 100 / len(blocks)
    for row, kind in enumerate(kinds):
        drawing.row_label(top + ROW * row + 14, kind.rsplit(".", 1)[-1])
    for (block, kind), layers in cells.items():
        if kind not in kinds:
            continue
        values = [layer[key] for layer in layers if figures.is_number(layer.get(key))]
        x, y = width * blocks.index(block), top + ROW * kinds.index(kind)
        name = (
            str(layers[0].get("name"))
            if len(layers) == 1
            else f"block {block}, worst of {len(layers)} {kind}"
        )
        hint = f"{name}: {figures.number(max(values))}" if values else f"{name}: not measured"
        style, opacity = ("cell", shade(max(values))) if values else ("unknown", 1.0)
        drawing.rect(x, y, 0.94 * width, ROW - 2, style, hint, fill_opacity=f"{opacity:.3f}")


class Shade:
    """Errors to opacity of the accent colour, on a log scale when they span more than a factor of
    eight.
    """

    FAINTEST = 0.06

    def __init__(self, values: list[float]) -> None:
        self.known = bool(values)
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        self.log = low > 0 and high / low > 8
        self.low, self.high = (low, high) if self.log else (0.0, high)
        self.scale = Scale(self.low, self.high, self.log)

    def __call__(self, value: float) -> float:
        """Opacity between FAINTEST and 1."""
        return self.FAINTEST + (1 - self.FAINTEST) * self.scale(value) / 100

    def middle(self) -> float:
        """The error at half the scale."""
        return float((self.low * self.high) ** 0.5) if self.log else (self.low + self.high) / 2


def legend(results: Mapping[str, Any]) -> Markup | None:
    """The colour scale of `anatomy`, with the errors at its ends and its middle."""
    layers = [
        layer
        for layer in records(results, "layers")
        if place(str(layer.get("name", ""))) is not None
    ]
    key = ranked_by(layers)
    shade = Shade([layer[key] for layer in layers if figures.is_number(layer.get(key))])
    if not shade.known:
        return None
    what = (
        "Curvature-weighted relative error" if key == "error_weighted" else "Relative squared error"
    )
    what += ", log scale" if shade.log else ""
    ends = f"From {figures.number(shade.low, 2)} to {figures.number(shade.high, 2)}."
    drawing = Drawing("legend", what, ends, 48)
    drawing.text(0, 12, what, "start", "label quiet")
    steps = 32
    for i in range(steps):
        opacity = shade.FAINTEST + (1 - shade.FAINTEST) * i / (steps - 1)
        drawing.rect(100 * i / steps, 18, 100 / steps, 10, "cell", fill_opacity=f"{opacity:.3f}")
    for x, value in ((0.0, shade.low), (50.0, shade.middle()), (100.0, shade.high)):
        anchor = "start" if x == 0 else "end" if x == 100 else "middle"
        drawing.text(x, 44, figures.number(value, 2), anchor, "label quiet")
    return drawing.markup()
