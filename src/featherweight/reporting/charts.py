"""The report's pictures, each a function of results.json that gives an svg, or None where nothing
was measured.

- `files`: the weight files before and after on one scale, and the light one enlarged, by what its bytes are spent on.
- `windows`: the KL of each window of text, so that one sees whether the mean speaks for all of them.
- `perplexities`: before and after with intervals, on one scale.
- `stages`: where the time went.

The picture of the layers is in `anatomy.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from . import figures
from .drawing import Drawing, Scale, nice_ticks
from .reading import Share, ledger, level, section

GUTTER = 116


def files(results: Mapping[str, Any]) -> Markup | None:
    """Bars of the original's and the light model's weight files on one scale, and the light one
    enlarged by kind.
    """
    shares = ledger(results)
    before: Any = section(results, "model").get("source_file_bytes")
    if not shares:
        return None
    total = sum(share.num_bytes for share in shares)
    widest = max(total, before if figures.is_number(before) else 0.0)
    parts = ", ".join(f"{share.label} {figures.size(share.num_bytes)}" for share in shares)
    drawing = Drawing(
        "files",
        "Weight files before and after",
        f"Light model {figures.size(total)}: {parts}.",
        172,
    )
    if figures.is_number(before):
        drawing.text(0, 12, "Original")
        drawing.text(100, 12, figures.size(before), "end", "label strong")
        drawing.rect(0, 20, 100 * before / widest, 18, "original", "original")
    drawing.text(0, 68, "Light")
    drawing.text(100, 68, figures.size(total), "end", "label strong")
    _stack(drawing, shares, 100 * total / widest, 76, 18)
    # Two hairlines open the small bar into the large one.
    drawing.line(0, 96, 0, 134, "grid")
    drawing.line(100 * total / widest, 96, 100, 134, "grid")
    _stack(drawing, shares, 100, 136, 36)
    return drawing.markup()


def _stack(drawing: Drawing, shares: list[Share], width: float, y: float, height: float) -> None:
    total, x = sum(share.num_bytes for share in shares), 0.0
    for share in shares:
        part = width * share.num_bytes / total
        hint = f"{share.label}: {figures.size(share.num_bytes)}, {figures.part(share.num_bytes / total)}"
        drawing.rect(x, y, part, height, f"kind-{share.kind}", hint)
        x += part


def windows(results: Mapping[str, Any]) -> Markup | None:
    """A dot for each window at its KL, the mean as a line, its interval as a band."""
    quality = section(results, "quality")
    values = [v for v in quality.get("kl_windows") or [] if figures.is_number(v)]
    mean = figures.mean(quality.get("kl"))
    if not values or mean is None:
        return None
    kl = quality["kl"]
    pad = 0.06 * (max(values) - min(values)) or 0.1 * abs(mean) or 1.0
    scale = Scale(max(0.0, min(values) - pad), max(values) + pad)
    ends = figures.span(kl)
    told = f"{len(values)} windows from {figures.number(min(values))} to {figures.number(max(values))} nats"
    drawing = Drawing(
        "windows", "KL of each window of text", f"{told}; mean {figures.number(mean)}, {ends}.", 134
    )
    if ends != figures.MISSING:
        low, high = scale(kl["low"]), scale(kl["high"])
        drawing.rect(
            low,
            24,
            max(high - low, 0.3),
            76,
            "band",
            f"{level(results)} interval of the mean: {ends}",
        )
    drawing.line(scale(mean), 24, scale(mean), 100, "mean")
    x = scale(mean)
    drawing.text(
        x, 14, f"mean {figures.number(mean)}", "start" if x < 12 else "end" if x > 88 else "middle"
    )
    for x, lane, value, index in _swarm(values, scale):
        drawing.dot(
            x, 62 + 11 * lane, 4.5, "dot", f"window {index + 1}: {figures.number(value)} nats"
        )
    drawing.axis(108, [(scale(t), _plain(t)) for t in nice_ticks(scale.low, scale.high)])
    return drawing.markup()


def _swarm(values: list[float], scale: Scale) -> list[tuple[float, int, float, int]]:
    """(percent, lane, value, index): the lane nearest the middle where a dot touches none placed
    before.
    """
    placed: list[tuple[float, int, float, int]] = []
    for index, value in sorted(enumerate(values), key=lambda pair: pair[1]):
        x = scale(value)
        taken = {lane for other, lane, _, _ in placed if x - other < 2.6}
        free = [lane for lane in (0, -1, 1, -2, 2, -3, 3) if lane not in taken]
        placed.append((x, free[0] if free else index % 7 - 3, value, index))
    return placed


def perplexities(results: Mapping[str, Any]) -> Markup | None:
    """Two rows, original and light: a dot at the perplexity, a bar over its interval."""
    rows = []
    for key, label in (("original", "Original"), ("light", "Light")):
        entry = section(results, "quality", key, "perplexity")
        if (mean := figures.mean(entry)) is not None:
            ends = [entry[end] for end in ("low", "high") if figures.is_number(entry.get(end))]
            rows.append((key, label, mean, ends if len(ends) == 2 else []))
    if not rows:
        return None
    every = [v for _, _, mean, ends in rows for v in (mean, *ends)]
    pad = 0.08 * (max(every) - min(every)) or 0.1 * max(every)
    scale = Scale(max(0.0, min(every) - pad), max(every) + pad)
    told = "; ".join(f"{label} {figures.fixed(mean, 2)}" for _, label, mean, _ in rows)
    drawing = Drawing(
        "perplexities", "Perplexity before and after", f"{told}.", 12 + 44 * len(rows) + 34
    )
    for i, (key, label, mean, ends) in enumerate(rows):
        y = 12 + 44 * i
        drawing.text(0, y, label)
        drawing.text(100, y, figures.fixed(mean, 2), "end", "label strong")
        drawing.line(0, y + 16, 100, y + 16, "grid")
        if ends:
            hint = f"{level(results)} interval {ends[0]:.2f} to {ends[1]:.2f}"
            drawing.rect(
                scale(ends[0]),
                y + 12,
                scale(ends[1]) - scale(ends[0]),
                8,
                f"range-{key}",
                hint,
                rx=4,
            )
        drawing.dot(scale(mean), y + 16, 5.5, f"dot-{key}", f"{label}: {figures.fixed(mean, 2)}")
    drawing.axis(
        8 + 44 * len(rows), [(scale(t), _plain(t)) for t in nice_ticks(scale.low, scale.high)]
    )
    return drawing.markup()


def stages(results: Mapping[str, Any]) -> Markup | None:
    """A bar for each stage that was timed, in the order in which they ran."""
    timed = [
        (str(k), float(v))
        for k, v in section(results, "seconds").items()
        if figures.is_number(v) and k != "total"
    ]
    if not timed:
        return None
    most = max(v for _, v in timed) or 1.0
    told = ", ".join(f"{name} {figures.duration(v)}" for name, v in timed)
    drawing = Drawing("stages", "Seconds by stage", f"{told}.", 26 * len(timed), GUTTER)
    for i, (name, seconds) in enumerate(timed):
        y = 26 * i
        drawing.row_label(y + 15, name if len(name) <= 15 else name[:14] + "…")
        width = 66 * seconds / most
        drawing.rect(0, y + 4, max(width, 0.3), 14, "bar", f"{name}: {figures.duration(seconds)}")
        drawing.text(max(width, 0.3), y + 15, figures.duration(seconds), "start", "label quiet", 8)
    return drawing.markup()


def _plain(value: float) -> str:
    return f"{value:,.6g}"
